"""Keys of a config: as a path of parts, and as they are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

KeyPath = tuple[str | int, ...]
"""Keys from the root; an int is an index into a list: `("dataset", "path_or_dataset_id", 0)`."""

_PART = re.compile(r"\[(?P<index>\d{1,9})\]|(?:^|\.)(?P<name>[^.\[\]=\s]+)")


def dotted(path: KeyPath) -> str:
    """A path as it is written: `dataset.path_or_dataset_id[0].weight`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def split_key(key: str) -> KeyPath:
    """A written key as a path.

    Raises:
        ValueError: if the key is malformed; with the rest that could not be read.
    """
    path: list[str | int] = []
    position = 0
    while position < len(key):
        match = _PART.match(key, position)
        if match is None or (match["index"] and not path):
            raise ValueError(key[position:])
        path.append(match["name"] or int(match["index"]))
        position = match.end()
    return tuple(path)


def leaf_paths(
    values: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves of nested tables with their paths; a list is one, and so is an empty table."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaf_paths(value, (*path, key))
        else:
            yield (*path, key), value


def is_variable(path: KeyPath) -> bool:
    """Whether a key is a variable of the environment: its value is text, whatever it looks like."""
    return len(path) > 1 and path[-2] == "env_vars"


def table_in(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A table of a config, empty where there is none: another trainer's may hold anything there."""
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}
