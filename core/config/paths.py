"""Which values of a config name local files, and how they are rewritten when the files move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ..keys import KeyPath, dotted, split_key

if TYPE_CHECKING:
    from ..schema.base import Table

Direction = Literal["input", "output"]


def local_path_fields(
    schema: type[Table] | None, values: Mapping[str, Any]
) -> list[tuple[str, str, Direction]]:
    """The values that may name files or folders of this machine.

    Hub ids are among them: whether a path exists decides, and that is the caller's to ask.

    Args:
        schema: the config's schema; without one nothing is known of its paths.
        values: the config's values.

    Returns:
        Dotted key (`dataset.path_or_dataset_id[0].path` for one of a list), value, and whether the
        run reads or writes it.
    """
    if schema is None:
        return []
    return [(dotted(path), value, way) for path, value, way in _search(schema, values, ())]


def set_path(values: dict[str, Any], key: str, value: str) -> None:
    """Set the value of a key that `local_path_fields` gave, in place."""
    *way, last = split_key(key)
    node: Any = values
    for part in way:
        node = node[part]
    node[last] = value


def _search(
    table: type[Table], values: Mapping[str, Any], path: KeyPath
) -> Iterator[tuple[KeyPath, str, Direction]]:
    from ..schema.base import LocalPath
    from .fields import markers, tables_in, visible

    for name, field in visible(table).items():
        value = values.get(name)
        here = (*path, name)
        inner = next(tables_in(field.annotation), None)
        if isinstance(value, str):
            for marker in markers(field, LocalPath)[:1]:
                if value.endswith(marker.suffix):
                    yield here, value, marker.direction
        elif inner is not None and isinstance(value, Mapping):
            yield from _search(inner, value, here)
        elif inner is not None and isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from _search(inner, item, (*here, index))
