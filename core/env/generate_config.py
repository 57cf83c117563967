"""The generator's configs: found by name or path, their `defaults` chain and overrides merged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from .. import locations
from ..config.chain import load_chain
from ..config.layers import Tree, leaf_at, overlay, plain
from ..config.overrides import Override, apply, parse_override
from ..config.yaml_file import YamlFile
from ..errors import UsageError
from ..keys import dotted, split_key
from ..origins import Origin, Sourced
from ..text import did_you_mean
from ..toml.text import refuse_null
from .inherit import refuse_secret
from .load import RESERVED

_OVERRIDABLE = ("output_path", "force", "preamble", "checks", "sections")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SiteValue(_Strict):
    """A value that only the site can give; `env init` asks for it on a terminal.

    Attributes:
        key: where it goes: `PROFILE.KEY`.
        question: what is asked, in a few words.
        example: what an answer may look like.
        env: the environment variable that the generated file reads until it is answered.
    """

    key: str
    question: str
    example: str
    env: str


class Checks(_Strict):
    """What must hold for the generated file.

    Attributes:
        required_profiles: profiles that must be there.
        recommended_min_nodes: profile → nodes; fewer get a warning.
    """

    required_profiles: list[str] = []
    recommended_min_nodes: dict[str, int] = {}


class GeneratorConfig(_Strict):
    """One generator config, merged and with its overrides applied.

    Attributes:
        output_path: the file to write; relative to the working directory.
        force: whether an existing file may be replaced.
        preamble: the comment at the top of the file.
        site: the few values that only the site can give.
        checks: what must hold for the result.
        sections: profile or reserved table → its keys. `about` becomes the comment above it, and
            `options` becomes keys that are written, but commented out.
    """

    output_path: str
    force: bool = False
    preamble: str = ""
    site: list[SiteValue] = []
    checks: Checks = Checks()
    sections: dict[str, dict[str, Any]]


def config_names() -> list[str]:
    """The generator configs that ship with the package."""
    files = locations.shipped_profiles_dir().glob("[!_]*.yaml")
    return sorted(file.stem for file in files)


def load_generator(
    name_or_path: str,
    overrides: Iterable[str] = (),
    cwd: Path | None = None,
    answers: Mapping[str, str] | None = None,
) -> GeneratorConfig:
    """Load a generator config with its `defaults` chain; apply overrides, then answers.

    Args:
        name_or_path: a shipped config's name, or the path of a YAML file (with a slash or `.yaml`).
        overrides: `key=value`, for example `sections.slurm_base.account=research`.
        cwd: what relative paths start from.
        answers: `SiteValue.key` → what the site answered, taken as text.

    Raises:
        UsageError: if there is no such config, it is not valid, or an override names what is not
            there.
    """
    tree, files = load_chain(_find(name_or_path, cwd or Path.cwd()))
    prefix = tree.pop("prefix", None)
    tree = _with_prefix(tree, str(prefix.value) if isinstance(prefix, Sourced) else "")
    for override in map(parse_override, overrides):
        _check_path(override, plain(tree).get("sections") or {})
        if override.path[0] == "sections" and override.value is not None:
            refuse_secret(override.path[2:], override.value)
        tree = apply(tree, override)
    for key, answer in (answers or {}).items():
        path = ("sections", *split_key(key))
        tree = apply(tree, Override(f"{dotted(path)}={answer}", path, answer))
    return _validated(tree, files[-1])


def inherited(sections: Mapping[str, Mapping[str, Any]], name: str, key: str) -> Any:
    """A key of a profile or of the nearest one that it extends; None where there is none."""
    seen: set[str] = set()
    while name in sections and name not in seen:
        seen.add(name)
        if key in sections[name]:
            return sections[name][key]
        name = str(sections[name].get("extends"))
    return None


def _find(name_or_path: str, cwd: Path) -> Path:
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return cwd / Path(name_or_path).expanduser()
    known = config_names()
    if name_or_path in known:
        return locations.shipped_profiles_dir() / f"{name_or_path}.yaml"
    hint = did_you_mean(name_or_path, known)
    raise UsageError(
        f"There is no generator config '{name_or_path}'. {hint}".strip(),
        fix=f"Use one of {', '.join(known)}, or the path of a YAML file.",
    )


def _with_prefix(tree: Tree, prefix: str) -> Tree:
    """Put the backend's prefix for `{prefix}` in all keys and texts.

    `{prefix}_base` of a shared file and `slurm_base` of a backend's own become one table; the
    backend's, which comes later, wins.
    """
    named: Tree = {}
    for key, node in tree.items():
        inner = (
            replace(node, value=_filled(node.value, prefix))
            if isinstance(node, Sourced)
            else _with_prefix(node, prefix)
        )
        named = overlay(named, {key.replace("{prefix}", prefix): inner})
    return named


def _filled(value: Any, prefix: str) -> Any:
    if isinstance(value, dict):
        return {key.replace("{prefix}", prefix): _filled(v, prefix) for key, v in value.items()}
    if isinstance(value, list):
        return [_filled(item, prefix) for item in value]
    return value.replace("{prefix}", prefix) if isinstance(value, str) else value


def _check_path(override: Override, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse an override of what is not there, with the nearest thing that is."""
    top, *rest = map(str, override.path)
    if top not in _OVERRIDABLE:
        raise UsageError(
            f"'{override.text}': the generator has no key '{top}'. "
            f"{did_you_mean(top, _OVERRIDABLE)}".strip(),
            fix="Values of a profile are set by sections.<profile>.<key>=<value>.",
        )
    if top != "sections":
        return
    if len(rest) < 2:
        raise UsageError(
            f"'{override.text}' names no key of a profile.",
            fix="Write sections.<profile>.<key>=<value>.",
        )
    profile, key = rest[:2]
    if profile not in sections:
        raise UsageError(
            f"'{override.text}': this config has no profile '{profile}'. "
            f"{did_you_mean(profile, sections)}".strip(),
            fix=f"The profiles are: {', '.join(sections)}.",
        )
    _check_key(override, sections, profile, key)


def _check_key(
    override: Override, sections: Mapping[str, Mapping[str, Any]], profile: str, key: str
) -> None:
    from .models import MODELS, keys_of

    executor = inherited(sections, profile, "executor")
    if profile in RESERVED or executor not in MODELS:
        return
    known = ["extends", *keys_of(executor)]
    if key not in known:
        raise UsageError(
            f"'{override.text}': a {executor} profile has no key '{key}'. "
            f"{did_you_mean(key, known)}".strip(),
            fix=f"The keys are: {', '.join(sorted(known))}.",
        )


def _without_nulls(table: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys that null takes away: TOML has no such value."""
    return {
        key: _without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in table.items()
        if value is not None
    }


def _validated(tree: Tree, file: YamlFile) -> GeneratorConfig:
    try:
        config = GeneratorConfig.model_validate(_without_nulls(plain(tree)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        leaf = leaf_at(tree, first["loc"])
        origin = leaf[0].origin if leaf else Origin("config", file.key_place(*first["loc"]))
        typed = f" (override {origin.text})" if origin.text else ""
        raise UsageError(
            f"'{dotted(first['loc'])}': {first['msg']}{typed}.",
            place=origin.place,
            fix="A generator config has output_path, force, preamble, site, checks and sections.",
        ) from error
    for name, table in config.sections.items():
        for key, value in table.items():
            refuse_null(value, f"sections.{name}.{key}")
        about, options = table.get("about", ""), table.get("options", {})
        if not isinstance(about, str) or not isinstance(options, dict):
            raise UsageError(
                f"'sections.{name}': 'about' is a comment, and 'options' a table of keys.",
                place=file.key_place("sections", name),
                fix="Mend it in the config.",
            )
    return config
