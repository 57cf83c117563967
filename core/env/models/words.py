"""What a profile's key may be, in words."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base import BaseProfile

_WORDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "list",
    "object": "table",
}


def type_words(model: type[BaseProfile], key: str) -> str:
    """What a key of an executor's profiles may be, such as `whole number ≥ 1`.

    A key inside a table, such as `env_vars.NAME`, is `any value`.
    """
    if "." in key:
        return "any value"
    prop = _schema(model).get(key)
    return _words(prop) if prop else "any value"


@cache
def _schema(model: type[BaseProfile]) -> dict[str, dict[str, Any]]:
    properties: dict[str, dict[str, Any]] = model.model_json_schema(by_alias=False)["properties"]
    return properties


def _words(prop: dict[str, Any]) -> str:
    if "anyOf" in prop:
        parts = [_words(one) for one in prop["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    if "enum" in prop:
        return "one of " + ", ".join(str(value) for value in prop["enum"])
    if "const" in prop:
        return str(prop["const"])
    kind = str(prop.get("type"))
    if kind == "array":
        return f"list of {_words(prop.get('items', {}))}s".replace("any values", "values")
    low = prop.get("ge", prop.get("minimum"))
    return _WORDS.get(kind, "any value") + (f" ≥ {low}" if low is not None else "")
