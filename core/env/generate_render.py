"""From a generator config to TOML text: new, or merged into a file that people have edited."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Item

from ..errors import Place, UsageError
from ..toml.source import TomlSource
from ..toml.text import WIDTH, toml_key, toml_pair
from .generate_config import GeneratorConfig, inherited


def render(config: GeneratorConfig) -> str:
    """The whole file as it looks when there is none yet. Equal configs give equal bytes."""
    explained: set[str] = set()
    parts = [_comment(config.preamble)] if config.preamble.strip() else []
    parts += [_section(config, name, explained) for name in config.sections]
    return "\n".join(parts)


def data_of(config: GeneratorConfig) -> dict[str, dict[str, Any]]:
    """What the generated file says, as plain data: no comments, no commented-out options."""
    return {
        name: {key: value for key, value in table.items() if key not in ("about", "options")}
        for name, table in config.sections.items()
    }


def merge(config: GeneratorConfig, existing: TomlSource) -> str:
    """Lay the generated values over an existing file, in place.

    What the config says replaces what the file says. Comments, formatting, further profiles and
    further keys of the file stay. Profiles that the file lacks are added at its end.

    Raises:
        UsageError: if the file is written in a way that cannot be edited in place.
    """
    wanted = data_of(config)
    try:
        document = tomlkit.parse(existing.text)
        for name, table in wanted.items():
            if name in document:
                _update(document[name], table)
        text = tomlkit.dumps(document)
    except (TOMLKitError, TypeError, ValueError) as error:
        raise _unmergeable(existing.file) from error
    explained = {key for table in existing.data.values() for key in _keys(table)}
    missing = [_section(config, name, explained) for name in wanted if name not in existing.data]
    if missing:
        text = "\n".join([text.rstrip("\n") + "\n" if text.strip() else "", *missing]).lstrip("\n")
    # tomlkit places new keys by guesswork where tables are written out of order or dotted.
    if not _says(text, _overlaid(existing.data, wanted)):
        raise _unmergeable(existing.file)
    return text


def kept_keys(config: GeneratorConfig, existing: Mapping[str, Any]) -> list[str]:
    """The profiles and keys of an existing file that the generator does not write."""
    return _beyond(existing, data_of(config))


def _section(config: GeneratorConfig, name: str, explained: set[str]) -> str:
    """One table with its comments; a key is explained where it first stands in the file."""
    from .models import describe

    table = config.sections[name]
    executor = inherited(config.sections, name, "executor")
    lines = [_comment(table["about"])] if table.get("about") else []
    lines.append(f"[{toml_key(name)}]\n")

    def explain(key: str) -> str:
        if key in explained or executor is None:
            return ""
        explained.add(key)
        text = describe(executor, key)
        return _comment(text) if text else ""

    order = _order(config, name, executor)
    values = data_of(config)[name]
    keys = sorted(values, key=lambda key: order.index(key) if key in order else len(order))
    tables = [key for key in keys if isinstance(values[key], Mapping) and len(values[key]) > 1]
    for key in keys:
        if key not in tables:
            lines.append(f"{explain(key)}{toml_pair(key, values[key])}\n")
    options = {key: v for key, v in table.get("options", {}).items() if key not in values}
    for key, value in options.items():
        lines.append(explain(key) + textwrap.indent(toml_pair(key, value), "#") + "\n")
    for key in tables:
        path = f"{toml_key(name)}.{toml_key(key)}"
        inner = "".join(f"{toml_pair(name, value)}\n" for name, value in values[key].items())
        lines.append(f"\n{explain(key)}[{path}]\n{inner}")
    return "".join(lines)


def _order(config: GeneratorConfig, name: str, executor: str | None) -> list[str]:
    """The order of keys: what the site has to look at, then as in the executor's model."""
    from .models import keys_of

    paths = [value.key.split(".") for value in config.site]
    site = [path[1] for path in paths if path[0] == name]
    return ["extends", "executor", *site, *(keys_of(executor) if executor else ())]


def _comment(text: str) -> str:
    """Text as comment lines; what is indented stays as it is, so that commands can be copied."""
    lines: list[str] = []
    for written in text.strip("\n").splitlines():
        line = written[1:].removeprefix(" ") if written.startswith("#") else written
        wrap = [line] if line.startswith(" ") else textwrap.wrap(line, WIDTH - 2)
        lines += wrap or [""]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _update(table: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if key not in table:
            table[key] = _inline(value)
        elif isinstance(value, Mapping) and isinstance(table[key], Mapping):
            _update(table[key], value)
        elif _plain(table[key]) != value:
            table[key] = _inline(value)


def _inline(value: Any) -> Item:
    """A value as one item: a new map goes in on one line, so that it cannot end up elsewhere."""
    parsed = tomlkit.parse(toml_pair("value", value) + "\n")["value"]
    assert isinstance(parsed, Item)
    return parsed


def _plain(value: Any) -> Any:
    return value.unwrap() if isinstance(value, Item) else value


def _overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _overlaid(result[key], value) if both else value
    return result


def _says(text: str, data: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == data
    except ValueError:
        return False


def _beyond(table: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """Dotted names of what `table` holds and `known` does not."""
    names: list[str] = []
    for key, value in table.items():
        if key not in known:
            names.append(key)
        elif isinstance(value, Mapping) and isinstance(known[key], Mapping):
            names += [f"{key}.{inner}" for inner in _beyond(value, known[key])]
    return names


def _keys(table: Any) -> list[str]:
    return list(table) if isinstance(table, Mapping) else []


def _unmergeable(file: str) -> UsageError:
    return UsageError(
        f"{file} is written in a way that cannot be edited in place.",
        place=Place(file),
        fix="Move the file away and generate it again, then copy your own profiles back.",
    )
