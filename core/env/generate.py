"""Env files generated from a config: worked out first, looked at, then written."""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config.overrides import text_override
from ..errors import Place, UsageError
from ..files import back_up, write_atomic
from ..findings import Finding, Fix
from ..keys import split_key
from ..text import counted, did_you_mean
from ..toml.source import read_toml
from .check import check_text
from .find import find_env_files, is_found
from .generate_config import GeneratorConfig, SiteValue, inherited, load_generator
from .generate_render import kept_keys, merge, render
from .load import RESERVED
from .mend import value_at
from .placeholder import placeholder_in


@dataclass(frozen=True, slots=True)
class Generated:
    """An env file that has been worked out and not yet written.

    Attributes:
        path: where it goes.
        text: the whole file.
        existing: the file that is there and will be replaced; None if there is none.
        profiles: the profiles that the generator put in.
        findings: what there is to say about it, `env check`'s findings among them.
        open_values: the site's values that are still placeholders.
    """

    path: Path
    text: str = field(repr=False)
    existing: str | None = field(repr=False)
    profiles: tuple[str, ...]
    findings: tuple[Finding, ...]
    open_values: tuple[SiteValue, ...]

    @property
    def diff(self) -> str:
        """What writing changes in the file that is there, as a unified diff."""
        name = self.path.name
        lines = difflib.unified_diff(
            (self.existing or "").splitlines(keepends=True),
            self.text.splitlines(keepends=True),
            f"{name} (as it is)" if self.existing is not None else "(no file)",
            f"{name} (generated)",
        )
        return "".join(lines)


def generate(
    name_or_path: str,
    overrides: Iterable[str] = (),
    cwd: Path | None = None,
    answers: Mapping[str, str] | None = None,
) -> Generated:
    """Work out an env file. Reads files, writes nothing, and gives equal text for equal input.

    Args:
        name_or_path: a shipped generator config (`slurm`) or the path of one.
        overrides: `output_path=…`, `force=true`, `sections.<profile>.<key>=<value>`.
        cwd: what a relative `output_path` starts from; the working directory by default.
        answers: `SiteValue.key` → what the site answered.

    Raises:
        UsageError: if the config or an override is wrong, a required profile is missing, or the
            file is there and `force` is not set, or cannot be edited.
    """
    cwd = cwd or Path.cwd()
    config = load_generator(name_or_path, overrides, cwd, answers)
    path = output_file(config, cwd)
    _check_required(config)
    existing = read_toml(path) if os.path.lexists(path) else None
    text = merge(config, existing) if existing else render(config)
    kept = kept_keys(config, existing.data) if existing else []
    checked = check_text(text, path)
    return Generated(
        path=path,
        text=text,
        existing=existing.text if existing else None,
        profiles=tuple(name for name in config.sections if name not in RESERVED),
        findings=(
            *_few_nodes(config, path),
            *_kept(kept, path),
            *_defined_elsewhere(config, path),
            *checked,
        ),
        open_values=tuple(_open(config, text, checked)),
    )


def wrong_answer(
    name_or_path: str, key: str, answer: str, overrides: Iterable[str] = (), cwd: Path | None = None
) -> str:
    """What is wrong with an answer to one of the site's questions; empty where nothing is.

    Args:
        name_or_path: the generator config.
        key: the question's `SiteValue.key`.
        answer: what was answered; an empty one leaves the question open.
        overrides: as `generate` takes them.
        cwd: what relative paths start from; the working directory by default.
    """
    if not answer:
        return ""
    config = load_generator(name_or_path, overrides, cwd, {key: answer})
    profile, *path = map(str, split_key(key))
    for finding in check_text(render(config), Path(config.output_path)):
        # A rule may speak of the whole entry, `mounts.0`, that the key is in.
        about = (finding.key or "?").split(".")
        is_own = finding.profile == profile and path[: len(about)] == about
        if is_own and finding.severity == "error":
            return finding.message
    return ""


def init_words(
    name_or_path: str, overrides: Iterable[str], answers: Mapping[str, str]
) -> list[str]:
    """The words of the `tunedeck env init` that generates the same; `shlex.join` makes a line.

    An answer is a text: what YAML would take for something else is put in quotes.
    """
    answered = [text_override(f"sections.{key}", answer) for key, answer in answers.items()]
    return ["tunedeck", "env", "init", "-c", name_or_path, *overrides, *answered]


def output_file(config: GeneratorConfig, cwd: Path) -> Path:
    """The file that a config writes.

    Raises:
        UsageError: if it is there and `force` is not set.
    """
    path = (cwd / Path(config.output_path).expanduser()).absolute()
    if os.path.lexists(path) and not config.force:
        raise UsageError(
            f"{path} is there already, and was left as it is.",
            place=Place(str(path)),
            fix="Add force=true to update it (your comments and further profiles stay, and a "
            "backup is kept), or choose another output_path.",
        )
    return path


def write(generated: Generated) -> Path | None:
    """Write an env file that was worked out; an existing one is copied to a `.bak` first.

    Returns:
        The backup, or None where nothing was replaced or nothing changed.

    Raises:
        UsageError: if the file on disk is not the one that `generated` was worked out from.
        OSError: if it cannot be written; the existing file is then untouched.
    """
    path = generated.path.resolve()  # a link stays a link
    found = read_toml(path).text if os.path.lexists(path) else None
    if found != generated.existing:
        raise UsageError(
            f"{generated.path} was changed by someone else just now, and was left as it is.",
            place=Place(str(generated.path)),
            fix="Run the command again.",
        )
    if found is None:
        write_atomic(path, generated.text)
        return None
    if found == generated.text:
        return None
    backup = back_up(path)
    write_atomic(path, generated.text, mode=stat.S_IMODE(path.stat().st_mode))
    return backup


def _check_required(config: GeneratorConfig) -> None:
    for name in config.checks.required_profiles:
        if name not in config.sections:
            hint = did_you_mean(name, config.sections)
            raise UsageError(
                f"The profile '{name}' is required and the config does not have it. {hint}".strip(),
                fix=f"Add it to `sections`, or take '{name}' out of checks.required_profiles.",
            )


def _few_nodes(config: GeneratorConfig, path: Path) -> Iterator[Finding]:
    for name, wanted in config.checks.recommended_min_nodes.items():
        nodes = inherited(config.sections, name, "nodes")
        if isinstance(nodes, int) and nodes < wanted:
            yield Finding(
                "warning",
                f"{name} has {counted(nodes, 'node')}; "
                f"its steps are recommended {wanted} at least.",
                Place(str(path)),
                profile=name,
                key="nodes",
                fix=Fix(f"sections.{name}.nodes={wanted}"),
            )


def _open(config: GeneratorConfig, text: str, checked: Iterable[Finding]) -> Iterator[SiteValue]:
    """What nobody has given; what was given and is wrong has findings that say how."""
    data = tomllib.loads(text)
    wrong = {f"{f.profile}.{f.key}" for f in checked if f.severity == "error"}
    for value in config.site:
        path = split_key(value.key)
        if ".".join(map(str, path)) not in wrong or os.environ.get(value.env):
            continue
        if placeholder_in(str(value_at(data, path))):
            yield value


def _kept(kept: list[str], path: Path) -> Iterator[Finding]:
    if kept:
        yield Finding("info", f"Kept as they were: {', '.join(kept)}.", Place(str(path)))


def _defined_elsewhere(config: GeneratorConfig, path: Path) -> Iterator[Finding]:
    """Profiles that another env file which is found beside this one defines too."""
    is_searched = path.parent.is_dir() and is_found(path)
    beside = find_env_files(path.parent).files if is_searched else ()
    for file in beside:
        if file == path:
            continue
        try:
            source = read_toml(file)
        except UsageError:
            continue  # `env check` says what is wrong with it
        both = [name for name in config.sections if name in source.data and name not in RESERVED]
        if both:
            yield Finding(
                "warning",
                f"{file.name} defines {both[0]} too; a profile that is defined twice is an error.",
                source.locate((both[0],)),
                profile=both[0],
                fix=Fix(f"Take {file.name} away, or name the file to use with --env-file."),
            )
