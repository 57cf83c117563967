"""Saved launches: the ingredients of a plan under a name, with a lock of what they came to.

A replay is a TOML file that a person can read, edit and commit. It lies in the user's own folder or
in a repository's `profiles/`; two examples ship. Without a lock, everything is taken as it is now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from . import locations
from .env.secrets import holds_secret
from .errors import Place, UsageError
from .files import write_atomic
from .plan import Plan
from .replay_files import Source, find_replay, replay_file, replay_files
from .replay_lock import Change, Lock, changes_between, holding, leaves, lock_of
from .resolve import resolve
from .selection import Selection
from .text import did_you_mean
from .toml_source import TomlSource, read_toml
from .toml_text import toml_pair


class Ingredients(BaseModel):
    """A replay file.

    Attributes:
        description: what it is for, in words.
        step, config, overrides, profile, env_file, catalog: as `Selection` has them.
        run_name: the name that its runs get; the replay's own where there is none.
        cwd: the folder that relative paths start from; relative to the repository for a replay in
            its `profiles/`. None is the repository's own, or where one is.
        lock: what it came to when it was saved.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    step: str
    config: str | None = None
    overrides: list[str] = []
    profile: str = "local"
    env_file: str | None = None
    catalog: list[str] = []
    run_name: str | None = None
    cwd: str | None = None
    lock: Lock | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """A replay that has been read.

    Attributes:
        name: what it is called by.
        file: where it lies.
        source: whose it is.
        ingredients: what the file says.
    """

    name: str
    file: Path
    source: Source
    ingredients: Ingredients

    def selection(self) -> Selection:
        """What it selects.

        Raises:
            UsageError: if its folder is no longer there.
        """
        saved = self.ingredients
        base = self.file.parent.parent if self.source == "repository" else Path.cwd()
        cwd = (base / saved.cwd).resolve() if saved.cwd else base
        if not cwd.is_dir():
            raise UsageError(
                f"The folder that '{self.name}' starts from is not there: {cwd}.",
                place=read_toml(self.file).locate(("cwd",)),
                fix="Correct 'cwd' in the file, or take it out to start from the working folder.",
            )
        return Selection(
            step=saved.step,
            config=saved.config,
            overrides=tuple(saved.overrides),
            profile=saved.profile,
            env_file=cwd / saved.env_file if saved.env_file else None,
            catalog=tuple(cwd / folder for folder in saved.catalog),
            name=saved.run_name or self.name,
            cwd=cwd,
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """A replay in a list; one that cannot be read is listed with the reason."""

    name: str
    file: Path
    source: Source
    replay: Replay | None
    problem: UsageError | None = None


def save_replay(
    plan: Mapping[str, Any],
    name: str,
    *,
    folder: Path | None = None,
    description: str = "",
    force: bool = False,
) -> Path:
    """Save a plan's ingredients and its lock under a name.

    Args:
        plan: `Plan.to_json()`, from a plan just made or from a run's record.
        name: letters, digits, `.`, `_` and `-`.
        folder: where to; the user's own folder by default, or a repository's `profiles/`.
        description: what it is for, in words.
        force: whether a replay of that name there may be replaced.

    Returns:
        The file.

    Raises:
        UsageError: if the name is no name or taken, or an override holds a secret.
    """
    target = replay_file(name, folder or locations.replays_dir())
    if target.exists() and not force:
        raise UsageError(
            f"There is a replay '{name}' already: {target}.",
            place=Place(str(target)),
            fix=f"Choose another name, or delete it: tunedeck replays delete {name}",
        )
    ingredients = _ingredients(plan, target.parent.parent if folder else None, description)
    write_atomic(target, _text(name, ingredients))
    return target


def load_replay(name: str, cwd: Path | None = None) -> Replay:
    """The replay of that name: the repository's, else the user's own, else the shipped one.

    Raises:
        NotFoundError: if there is none; with the nearest name.
        UsageError: if the file cannot be read or says what it must not; with the place.
    """
    return _read(name, *find_replay(name, cwd))


def list_replays(cwd: Path | None = None) -> list[Listed]:
    """All replays that can be seen from a folder, by name."""
    listed = []
    for name, (file, source) in replay_files(cwd).items():
        try:
            listed.append(Listed(name, file, source, _read(name, file, source)))
        except UsageError as error:
            listed.append(Listed(name, file, source, None, error))
    return listed


def delete_replay(name: str, cwd: Path | None = None) -> Path:
    """Delete a replay's file, readable or not. Returns where it was.

    Raises:
        NotFoundError: if there is none of that name.
        UsageError: if it ships with Tunedeck.
    """
    file, source = find_replay(name, cwd)
    if source == "shipped":
        raise UsageError(
            f"'{name}' ships with Tunedeck and cannot be deleted.",
            fix="A replay of your own by the same name takes its place.",
        )
    file.unlink()
    return file


def changes_since(replay: Replay, plan: Plan) -> list[Change]:
    """What a replay's ingredients come to now that they did not when it was saved.

    Args:
        replay: the replay; without a lock nothing is a change.
        plan: `resolve(replay.selection())`, or the same with another profile.
    """
    locked = replay.ingredients.lock
    if locked is None:
        return []
    other = plan.profile != replay.ingredients.profile
    return changes_between(locked, lock_of(plan.to_json()), other_profile=other)


def frozen(replay: Replay, selection: Selection, changes: list[Change]) -> Selection:
    """The selection with every changed value put back to what was locked.

    Args:
        replay: the replay.
        selection: its selection.
        changes: `changes_since` for that selection's plan.

    Raises:
        UsageError: if it has no lock, or what has changed cannot be put back: a file's content,
            the step's definition, the code.
    """
    locked = replay.ingredients.lock
    if locked is None:
        raise UsageError(
            f"'{replay.name}' has no lock that it could be frozen to.",
            place=Place(str(replay.file)),
            fix="Run it, then save that run: tunedeck replays save NAME --from RUN",
        )
    held = replace(selection, overrides=(*selection.overrides, *holding(changes, locked)))
    left = changes_since(replay, resolve(held))
    if left:
        raise UsageError(
            f"'{replay.name}' cannot be frozen: " + "; ".join(map(str, left)),
            place=Place(str(replay.file)),
            fix="Put back what these name, or run with what there is now: --accept-changes",
        )
    return held


def _ingredients(plan: Mapping[str, Any], base: Path | None, description: str) -> Ingredients:
    """What a plan was made of.

    Args:
        plan: `Plan.to_json()`.
        base: the folder of the repository that it is saved in, if it is.
        description: what it is for.
    """
    chosen = plan["selection"]
    cwd = Path(chosen["cwd"])
    config = chosen["config"]
    given = [description, *plan["overrides"]]
    for text in given:
        if holds_secret(text):
            raise UsageError(
                "A replay holds no secret, and one of its values looks like one: "
                f"{text.partition('=')[0]}=…",
                fix="Take it out; name the secret in the profile's 'secrets'.",
            )
    return Ingredients(
        description=description,
        step=plan["step"],
        config=_below(config, cwd) if config and "/" in config else config,
        overrides=list(plan["overrides"]),
        profile=plan["profile"],
        env_file=_below(chosen["env_file"], cwd) if chosen["env_file"] else None,
        catalog=[_below(folder, cwd) for folder in chosen["catalog"]],
        run_name=chosen["name"],
        cwd=_folder(cwd, base),
        lock=lock_of(plan),
    )


def _folder(cwd: Path, base: Path | None) -> str | None:
    if base is None:
        return str(cwd)
    return None if cwd == base.absolute() else _below(str(cwd), base.absolute())


def _below(path: str, folder: Path) -> str:
    """A path relative to a folder that it lies in; any other as it is."""
    try:
        return str(Path(path).relative_to(folder))
    except ValueError:
        return path


def _text(name: str, ingredients: Ingredients) -> str:
    """The file: ingredients above, the lock below, what is empty left out."""
    values = {"profile": ingredients.profile, **ingredients.model_dump(exclude_defaults=True)}
    lock = values.pop("lock", {})
    lines = [
        f"# A saved launch. Run it again: tunedeck replay {name}",
        "# Edit what you like above [lock], which says what it came to when it was saved.",
        *(toml_pair(key, values[key]) for key in Ingredients.model_fields if key in values),
    ]
    tables = {key: lock.pop(key) for key in ("launch", "config", "profile") if key in lock}
    lines += ["", "[lock]", *(toml_pair(key, value) for key, value in lock.items())]
    for table, inner in tables.items():
        lines += ["", f"[lock.{table}]"]
        lines += [toml_pair(key.split("."), value) for key, value in leaves(inner)]
    return "\n".join(lines) + "\n"


def _read(name: str, file: Path, source: Source) -> Replay:
    text = read_toml(file)
    try:
        return Replay(name, file, source, Ingredients.model_validate(text.data))
    except ValidationError as error:
        raise _invalid(text, error) from error


def _invalid(text: TomlSource, error: ValidationError) -> UsageError:
    first = error.errors(include_url=False)[0]
    *way, last = first["loc"]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = (Lock if way else Ingredients).model_fields
        return UsageError(
            f"A replay has no key '{key}'. {did_you_mean(str(last), known)}".strip(),
            place=text.locate(first["loc"]),
            fix=f"The keys are: {', '.join(known)}.",
        )
    return UsageError(
        f"'{key}': {first['msg']}.",
        place=text.locate(first["loc"]),
        fix="Mend it in the file, or save the launch again.",
    )
