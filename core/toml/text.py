"""Values as TOML text that is pleasant to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError

WIDTH = 100


def toml_pair(key: str | Sequence[str], value: Any) -> str:
    """`key = value`; a sequence of keys makes a dotted one.

    Lists of tables, and lists too long for a line, take a line an item.
    """
    names = [key] if isinstance(key, str) else key
    name = ".".join(toml_key(part) for part in names)
    line = f"{name} = {toml_value(value)}"
    several = isinstance(value, list) and len(value) > 0
    if several and (len(line) > WIDTH or any(isinstance(item, Mapping) for item in value)):
        items = "".join(f"    {toml_value(item)},\n" for item in value)
        return f"{name} = [\n{items}]"
    return line


def toml_key(name: str) -> str:
    """A key, in quotes where it needs them."""
    import tomlkit

    return tomlkit.key(name).as_string()


def toml_value(value: Any) -> str:
    """A value on one line."""
    import tomlkit

    if isinstance(value, Mapping):
        inner = ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    return str(tomlkit.item(value).as_string())


def refuse_null(value: Any, given: str) -> None:
    """Refuse a value that holds null, for which TOML has no word: `-` alone is a list with one.

    Args:
        value: as YAML reads it.
        given: the key, or the whole override, as it was given.

    Raises:
        UsageError: if it, or anything in it, is null.
    """
    if value is None:
        raise UsageError(
            f"The value of '{given}' holds a null, which an env file cannot say.",
            fix="Leave it out; a text that YAML takes for something else goes in quotes.",
        )
    if isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            refuse_null(item, given)
