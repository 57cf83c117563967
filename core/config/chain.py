"""A config file with the files that its `defaults:` inherits from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import UsageError
from ..text import did_you_mean
from .layers import Tree, overlay, tree_of
from .yaml_file import YamlFile, read_yaml


def load_chain(
    path: Path, prepare: Callable[[Tree], Tree] = lambda tree: tree
) -> tuple[Tree, tuple[YamlFile, ...]]:
    """Read a config and all it inherits from. Chains may be of any length.

    `defaults` is a file's name or a list of them, relative to the file that says so, with or
    without `.yaml`. Of several parents a later one wins, and the file itself wins over them all.

    Args:
        path: the config file.
        prepare: applied to each file's values before they are merged.

    Returns:
        The merged values, and the files, parents first.

    Raises:
        UsageError: if a file cannot be read or is missing, or files inherit in a circle.
    """
    first = read_yaml(path)
    start = os.path.realpath(path)
    files = {start: first}
    done: dict[str, Tree] = {}
    waiting = [start]
    on_the_way: dict[str, None] = {}
    while waiting:
        current = waiting[-1]
        if current in done:
            waiting.pop()
            continue
        on_the_way[current] = None
        parents = [(os.path.realpath(parent), parent) for parent in _parents(files[current])]
        missing = [(real, parent) for real, parent in parents if real not in done]
        for real, _ in missing:
            if real in on_the_way:
                way = list(on_the_way)
                raise _circle(files[current], [*way[way.index(real) :], real])
        if missing:
            real, parent = missing[0]
            files.setdefault(real, read_yaml(parent))
            waiting.append(real)
            continue
        tree: Tree = {}
        for real, _ in parents:
            tree = overlay(tree, done[real])
        layer = f"config {files[current].path.stem}"
        done[current] = overlay(tree, prepare(tree_of(files[current], layer)))
        on_the_way.pop(current)
        waiting.pop()
    return done[start], tuple(files[real] for real in done)


def _parents(file: YamlFile) -> list[Path]:
    names = file.data.get("defaults")
    if names is None:
        return []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(
            "'defaults' must be a file's name or a list of them.",
            place=file.key_place("defaults"),
            fix="Write it like this: 'defaults: default.yaml'",
        )
    return [_parent(file, name) for name in names if name != "_self_"]


def _parent(file: YamlFile, name: str) -> Path:
    folder = file.path.parent
    for candidate in (folder / name, folder / f"{name}.yaml", folder / f"{name}.yml"):
        with contextlib.suppress(OSError):  # a name that is too long is no file's
            if candidate.is_file() or candidate.is_symlink():
                return candidate
    there = [found.name for found in folder.glob("*.y*ml") if found.name != file.path.name]
    raise UsageError(
        f"'defaults' names '{name}', and there is no such file in {folder or '.'}.",
        place=file.key_place("defaults"),
        fix=did_you_mean(name, [*there, *(Path(found).stem for found in there)])
        or "The name is relative to the file that says so, with or without '.yaml'.",
    )


def _circle(file: YamlFile, way: list[str]) -> UsageError:
    names = [Path(real).name for real in way]
    if len(names) > 8:
        names = [*names[:4], "…", *names[-3:]]
    return UsageError(
        f"Configs inherit from each other in a circle: {' → '.join(names)}.",
        place=file.key_place("defaults"),
        fix=f"Take 'defaults' out of one of them, for example out of {file.path.name}.",
    )
