"""Which env files are used, why those, and which were passed over."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import Place, UsageError

VARIABLES = ("TUNEDECK_ENV_FILE", "NEMOTRON_ENV_FILE")
"""Environment variables that name an env file, the first that is set wins."""

_NAME = re.compile(r"env(?:[._-].+)?\.toml")


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """The env files that are used, and the reason in words. No file is a legitimate result."""

    files: tuple[Path, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class PassedOver:
    """An env file that is not used, and why."""

    file: Path
    reason: str


def find_env_files(cwd: Path | None = None, env_file: str | Path | None = None) -> FoundFiles:
    """Find the env files.

    `env_file`, then the variables TUNEDECK_ENV_FILE and NEMOTRON_ENV_FILE, then a walk from the
    working directory up to the repository's root: the first folder that has `env.toml`,
    `env.*.toml`, `env-*.toml` or `env_*.toml` gives all of those it has. Outside a repository only
    the working directory is looked at.

    Args:
        cwd: where to start; the process's working directory by default.
        env_file: the file that was asked for with `--env-file`.

    Raises:
        UsageError: if a file that was named is not there.
    """
    cwd = (cwd or Path.cwd()).absolute()
    for source, path in _named(cwd, env_file):
        if not os.path.lexists(path):
            raise UsageError(
                f"There is no file {path}, named by {source}.",
                place=Place(str(path)),
                fix=f"Correct {source}, or make the file: tunedeck env init output_path={path}",
            )
        return FoundFiles((path,), f"named by {source}")
    folders, root = _folders(cwd)
    for folder in folders:
        if files := _env_files_in(folder):
            where = "in the working directory" if folder == cwd else f"in {folder}, above {cwd}"
            return FoundFiles(files, where)
    if root is None:
        return FoundFiles(
            (), f"none in {cwd}, and outside a repository no other folder is searched"
        )
    return FoundFiles((), f"none from {cwd} up to the repository's root {root}")


def is_found(path: Path) -> bool:
    """Whether a file of this name is an env file that is found without being named."""
    return _NAME.fullmatch(path.name) is not None


def passed_over(
    found: FoundFiles, cwd: Path | None = None, env_file: str | Path | None = None
) -> list[PassedOver]:
    """The env files that someone might expect to be used and that are not, with the reason each.

    Takes the arguments that `find_env_files` was called with.
    """
    cwd = (cwd or Path.cwd()).absolute()
    named = list(_named(cwd, env_file))
    over = [
        PassedOver(path, f"named by {source}, but {named[0][0]} comes first")
        for source, path in named[1:]
    ]
    searched, _ = _folders(cwd)
    for folder in (cwd, *cwd.parents):
        if named:
            reason = f"not searched for: {named[0][0]} names the file"
        elif folder in searched:
            reason = "further up than the first folder that has an env file"
        elif len(searched) == 1 and searched[0] == cwd and not _is_root(cwd):
            reason = "outside a repository only the working directory is searched"
        else:
            reason = "outside the repository"
        over.extend(PassedOver(file, reason) for file in _env_files_in(folder))
    first = {item.file: item for item in reversed(over)}
    return [item for item in over if item is first[item.file] and item.file not in found.files]


def _named(cwd: Path, env_file: str | Path | None) -> Iterator[tuple[str, Path]]:
    """The files that are named outright, the one that wins first."""
    if env_file is not None:
        yield "--env-file", cwd / Path(env_file).expanduser()
    for variable in VARIABLES:
        if value := os.environ.get(variable):
            yield variable, cwd / Path(value).expanduser()


def _folders(cwd: Path) -> tuple[list[Path], Path | None]:
    """The folders to search, nearest first, and the repository's root if there is one."""
    folders = [cwd, *cwd.parents]
    root = next((folder for folder in folders if _is_root(folder)), None)
    return (folders[: folders.index(root) + 1], root) if root else ([cwd], None)


def _is_root(folder: Path) -> bool:
    return os.path.lexists(folder / ".git")


def _env_files_in(folder: Path) -> tuple[Path, ...]:
    """The env files of one folder, `env.toml` first. A folder that may not be listed has none."""
    try:
        names = [path.name for path in folder.iterdir() if is_found(path)]
    except PermissionError:
        return ()
    return tuple(folder / name for name in sorted(names, key=lambda n: (n != "env.toml", n)))
