"""Where saved launches lie, and what they may be called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from .. import locations
from ..errors import NotFoundError, UsageError
from ..text import did_you_mean

SUFFIX = ".replay.toml"

Source = Literal["repository", "user", "shipped"]
"""Whose a replay is. The repository's hides the user's of the same name, and that the shipped."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def replay_file(name: str, folder: Path) -> Path:
    """The file of a replay in a folder.

    Raises:
        UsageError: if the name is none.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' is no name for a replay.",
            fix="Use letters, digits, '.', '_' and '-', at most 64, a letter or digit first.",
        )
    return folder / f"{name}{SUFFIX}"


def replay_files(cwd: Path | None = None) -> dict[str, tuple[Path, Source]]:
    """Every replay that can be seen from a folder: name → file and whose it is.

    The repository's are those in the `profiles/` of the folder or of one above it, up to the
    repository's root; outside a repository, of the folder itself.
    """
    cwd = (cwd or Path.cwd()).absolute()
    root = _root(cwd)
    above = [cwd, *cwd.parents]
    searched = above[: above.index(root) + 1] if root else [cwd]
    shipped = locations.shipped_profiles_dir()
    folders: list[tuple[Path, Source]] = [
        (folder / "profiles", "repository")
        for folder in searched
        if (folder / "profiles").resolve() != shipped.resolve()
    ]
    folders += [(locations.replays_dir(), "user"), (shipped, "shipped")]
    found: dict[str, tuple[Path, Source]] = {}
    for folder, source in folders:
        for file in sorted(_in(folder)):
            found.setdefault(file.name.removesuffix(SUFFIX), (file, source))
    return dict(sorted(found.items()))


def find_replay(name: str) -> tuple[Path, Source]:
    """The file of a replay, and whose it is.

    Raises:
        NotFoundError: if there is none of that name; with the nearest.
    """
    files = replay_files()
    if name not in files:
        raise NotFoundError(
            f"There is no replay '{name}'. {did_you_mean(name, files)}".strip(),
            fix="See what there is: tunedeck replays list",
        )
    return files[name]


def repository_folder(cwd: Path | None = None) -> Path:
    """The folder for the replays of the repository around a folder.

    Raises:
        UsageError: if there is no repository around it.
    """
    cwd = (cwd or Path.cwd()).absolute()
    root = _root(cwd)
    if root is None:
        raise UsageError(
            f"{cwd} is in no repository.",
            fix="Leave --repository away to save the replay in your own folder.",
        )
    return root / "profiles"


def _root(cwd: Path) -> Path | None:
    return next((folder for folder in (cwd, *cwd.parents) if (folder / ".git").exists()), None)


def _in(folder: Path) -> Iterator[Path]:
    """The replay files of a folder; one that is not there or not readable has none."""
    try:
        yield from (file for file in folder.iterdir() if file.name.endswith(SUFFIX))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
