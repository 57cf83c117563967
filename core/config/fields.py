"""Looking into a schema: its visible fields, the tables below them, and their markers."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ..keys import KeyPath
from ..schema.base import Table

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo as PydanticField

Marker = TypeVar("Marker")


def visible(table: type[Table]) -> dict[str, PydanticField]:
    """The fields of a table that people set, without AutoModel's own that mean nothing here."""
    return {name: field for name, field in table.model_fields.items() if not field.exclude}


def known_keys(table: type[Table]) -> set[str]:
    """All keys that a table accepts, AutoModel's among them."""
    return {field.alias or name for name, field in table.model_fields.items()}


def tables_in(annotation: Any) -> Iterator[type[Table]]:
    """The tables that a field's annotation allows: none for a scalar, several for a union."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield annotation
        return
    for inner in typing.get_args(annotation):
        yield from tables_in(inner)


def markers(field: PydanticField, kind: type[Marker]) -> list[Marker]:
    """The markers of one kind on a field, at any depth of its annotation."""

    def search(annotation: Any) -> Iterator[Any]:
        yield from getattr(annotation, "__metadata__", ())
        for inner in typing.get_args(annotation):
            yield from search(inner)

    candidates = [*field.metadata, *search(field.annotation)]
    return [found for found in candidates if isinstance(found, kind)]


def table_at(schema: type[Table], path: KeyPath) -> type[Table] | None:
    """The table that a path leads to; of a union the one that knows the path's next key."""
    current: list[type[Table]] = [schema]
    for part in path:
        if isinstance(part, int):
            continue
        fields = [table.model_fields[part] for table in current if part in table.model_fields]
        current = [table for field in fields for table in tables_in(field.annotation)]
    return current[0] if current else None
