"""Saved launches: the ingredients of a plan under a name, with a lock of what they came to.

A replay is a TOML file that a person can read, edit and commit. It lies in the user's own folder or
in a repository's `profiles/`; two examples ship. Without a lock, everything is taken as it is now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import locations
from ..errors import Place, UsageError
from ..files import write_atomic
from ..plan import Plan
from ..resolve import resolve
from ..selection import Selection
from ..toml.source import read_toml
from .files import Source, find_replay, replay_file, replay_files
from .ingredients import Ingredients, ingredients_of, read_ingredients, replay_text
from .lock import Change, changes_between, holding, lock_of


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
    ingredients = ingredients_of(plan, target.parent.parent if folder else None, description)
    write_atomic(target, replay_text(name, ingredients))
    return target


def load_replay(name: str) -> Replay:
    """The replay of that name: the repository's, else the user's own, else the shipped one.

    Raises:
        NotFoundError: if there is none; with the nearest name.
        UsageError: if the file cannot be read or says what it must not; with the place.
    """
    file, source = find_replay(name)
    return Replay(name, file, source, read_ingredients(file))


def list_replays(cwd: Path | None = None) -> list[Listed]:
    """All replays that can be seen from a folder, by name."""
    listed = []
    for name, (file, source) in replay_files(cwd).items():
        try:
            replay = Replay(name, file, source, read_ingredients(file))
            listed.append(Listed(name, file, source, replay))
        except UsageError as error:
            listed.append(Listed(name, file, source, None, error))
    return listed


def replays_on(profile: str, cwd: Path | None = None) -> list[str]:
    """The names of the replays that run on a profile."""
    return [
        one.name
        for one in list_replays(cwd)
        if one.replay is not None and one.replay.ingredients.profile == profile
    ]


def delete_replay(name: str) -> Path:
    """Delete a replay's file, readable or not. Returns where it was.

    Raises:
        NotFoundError: if there is none of that name.
        UsageError: if it ships with Tunedeck.
    """
    file, source = find_replay(name)
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
