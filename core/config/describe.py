"""A schema as rows for forms, listings and documentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from ..schema.base import Table

Kind = Literal["bool", "int", "float", "str", "choice", "list", "table"]

_SIGNS = {
    "minimum": "≥",
    "ge": "≥",
    "exclusiveMinimum": ">",
    "gt": ">",
    "maximum": "≤",
    "le": "≤",
    "exclusiveMaximum": "<",
    "lt": "<",
}


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One key of a config.

    Attributes:
        key: dotted from the root.
        kind: which widget a form shows for it.
        type: what it may be, in words: `integer ≥ 1 or null`.
        default: its default as plain data; for a table None, its keys have their own.
        description: what it does, with units.
        choices: the values it may have, where they are few.
        required: whether there is no default.
        nullable: whether null is a value of its own.
        path: whether it names local files, and which way they go.
        examples: values that it may have.
    """

    key: str
    kind: Kind
    type: str
    default: Any
    description: str
    choices: tuple[Any, ...] = ()
    required: bool = False
    nullable: bool = False
    path: Literal["input", "output"] | None = None
    examples: tuple[Any, ...] = ()


def describe(schema: type[Table]) -> list[FieldInfo]:
    """All keys of a schema, tables before what is in them, in the schema's order."""
    return list(_described(schema))


@cache
def _described(schema: type[Table]) -> tuple[FieldInfo, ...]:
    document = schema.model_json_schema()
    return tuple(_rows(schema, document, document.get("$defs", {}), ""))


def _rows(
    table: type[Table], document: Mapping[str, Any], defs: Mapping[str, Any], prefix: str
) -> Iterator[FieldInfo]:
    from pydantic_core import to_jsonable_python

    from ..schema.base import LocalPath
    from .fields import markers, tables_in, visible

    for name, field in visible(table).items():
        prop = document["properties"][name]
        inner = next(tables_in(field.annotation), None)
        allowed = list(_variants(prop))
        kind = _kind(allowed)
        default = (
            None
            if kind == "table" or field.is_required()
            else field.get_default(call_default_factory=True, validated_data={})
        )
        paths = markers(field, LocalPath)
        yield FieldInfo(
            key=prefix + name,
            kind=kind,
            type=_type_text(prop, defs),
            default=to_jsonable_python(default),
            description=field.description or "",
            choices=_choices(allowed) if kind in ("choice", "bool") else (),
            required=field.is_required(),
            nullable=any(variant.get("type") == "null" for variant in allowed),
            path=paths[0].direction if paths and not paths[0].suffix else None,
            examples=tuple(field.examples or ()),
        )
        if inner is not None and kind == "table":
            yield from _rows(inner, defs[inner.__name__], defs, f"{prefix}{name}.")


def _variants(prop: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a property may be: each branch of its unions."""
    branches = prop.get("anyOf") or prop.get("oneOf")
    if branches is None:
        yield prop
        return
    for branch in branches:
        yield from _variants(branch)


def _kind(variants: list[Mapping[str, Any]]) -> Kind:
    values = [variant for variant in variants if variant.get("type") != "null"]
    if any("enum" in variant or "const" in variant for variant in values):
        return "choice"
    if any("$ref" in variant for variant in values):
        return "table"
    names = {
        "boolean": "bool",
        "integer": "int",
        "number": "float",
        "string": "str",
        "array": "list",
        "object": "table",
    }
    return cast("Kind", names.get(str(values[0].get("type")), "str"))


def _choices(variants: list[Mapping[str, Any]]) -> tuple[Any, ...]:
    found: list[Any] = []
    for variant in variants:
        if "enum" in variant:
            found.extend(variant["enum"])
        elif "const" in variant:
            found.append(variant["const"])
        elif variant.get("type") == "boolean":
            found.extend((False, True))
    return tuple(found)


def _type_text(prop: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    variants = list(_variants(prop))
    words: list[str] = []
    for variant in sorted(variants, key=lambda variant: variant.get("type") == "null"):
        word = _variant_text(variant, defs)
        if word not in words:
            words.append(word)
    return " or ".join(words)


def _variant_text(variant: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    if "enum" in variant:
        return "one of " + ", ".join(str(value) for value in variant["enum"])
    if "const" in variant:
        return str(variant["const"])
    if "prefixItems" in variant:
        items = variant["prefixItems"]
        return f"list of {len(items)} {_plural(_type_text(items[0], defs))}"
    if variant.get("type") == "array":
        return f"list of {_plural(_type_text(variant.get('items', {}), defs))}"
    names = {"boolean": "true or false", "object": "table", None: "any value"}
    kind = variant.get("type")
    word = "table" if "$ref" in variant else names.get(kind, str(kind))
    limits = [f"{sign} {variant[key]}" for key, sign in _SIGNS.items() if key in variant]
    return " and ".join([f"{word} {limits[0]}", *limits[1:]]) if limits else word


def _plural(word: str) -> str:
    noun, space, limits = word.partition(" ")
    return f"{noun}s{space}{limits}"
