"""Overrides from the command line: `key=value`, typed as OmegaConf's dotlist types them."""

from __future__ import annotations

import copy
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..keys import KeyPath, dotted, is_variable, split_key
from ..origins import Origin, Sourced
from ..secrets import mask_text
from .layers import Tree, from_value, leaf_at, overlay
from .yaml_shape import MAX_DEPTH, check_shape

_CLOCK = re.compile(r"\d+(:\d\d?)+")
"""A walltime such as 12:00:00, which YAML 1.1 would read as a number to the base of 60."""


@dataclass(frozen=True, slots=True)
class Override:
    """One override and what it means.

    Attributes:
        text: as it was typed, but for what looks like a secret, which is masked.
        path: the key.
        value: typed, interpolations unresolved.
    """

    text: str
    path: KeyPath
    value: Any

    @property
    def origin(self) -> Origin:
        """The layer of the command line, with the text of this override."""
        return Origin("command line", text=self.text)


def parse_override(text: str) -> Override:
    """Read `key=value`.

    Raises:
        UsageError: if there is no `=`, the key is malformed, or the value is no YAML.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(
            f"The override {text!r} is not UTF-8.", fix="Type it in a terminal that uses UTF-8."
        )
    shown = mask_text(text)
    key, equals, value = text.partition("=")
    if key[:1] in ("~", "+"):
        bare = key.lstrip("~+")
        raise UsageError(
            f"The override '{shown}' begins with '{key[0]}', which is Hydra's syntax.",
            fix=f"Write {bare}=null to unset it."
            if key[0] == "~"
            else f"Write it without the '{key[0]}': an override may add a key.",
        )
    if not equals or not key:
        raise UsageError(
            f"The override '{shown}' has no {'key' if equals else 'value'}.",
            fix="Write it as key=value, for example optimizer.lr=1e-4; key=null unsets a value.",
        )
    path = _path(key, shown)
    read = _value(value, shown, MAX_DEPTH - len(path))
    if is_variable(path) and isinstance(read, int | float):
        read = value.strip()
    return Override(shown, path, read)


def text_override(key: str, text: str) -> str:
    """The override that sets a key to a text, in quotes where YAML would take it for another."""
    override = f"{key}={text}"
    with suppress(UsageError):
        if parse_override(override).value == text:
            return override
    return f"{key}={json.dumps(text, ensure_ascii=False)}"


def apply(tree: Tree, override: Override) -> Tree:
    """A new tree with an override laid over it. An index changes one item of a list.

    Raises:
        UsageError: if an index leads into something that is no list, or past its end.
    """
    path = override.path
    keys = tuple(part for part in path if isinstance(part, str))
    found = leaf_at(tree, path)
    inside_list = found is not None and isinstance(found[0].value, list) and found[1] != path
    if found is None or not inside_list:
        if keys != path:
            raise _no_list(override, next(i for i, part in enumerate(path) if part not in keys))
        return overlay(tree, from_value(keys, override.value, override.origin))
    leaf, at = found
    items = copy.deepcopy(leaf.value)
    _set_inside(items, path[len(at) :], override)
    changed = Sourced(items, override.origin)
    return overlay(tree, from_value(tuple(map(str, at)), changed.value, changed.origin))


def _set_inside(items: list[Any], path: KeyPath, override: Override) -> None:
    node: Any = items
    for depth, part in enumerate(path):
        if isinstance(node, list):
            if not (isinstance(part, int) or part.isdigit()) or int(part) >= len(node):
                raise UsageError(
                    f"The override '{override.text}' names item {part} of a list that has "
                    f"{len(node)}.",
                    fix="Items count from 0. To replace the list, write key=[first,second].",
                )
            slot: Any = int(part)
        elif isinstance(node, dict):
            slot = part
        else:
            raise _no_list(override, len(override.path) - len(path) + depth)
        if depth == len(path) - 1:
            node[slot] = override.value
        else:
            node = node.setdefault(slot, {}) if isinstance(node, dict) else node[slot]


def _no_list(override: Override, depth: int) -> UsageError:
    return UsageError(
        f"The override '{override.text}' goes into {dotted(override.path[:depth])}, which is no "
        "list.",
        fix="Write key=[first,second] to set a list.",
    )


def _path(key: str, text: str) -> KeyPath:
    try:
        path = split_key(key)
    except ValueError as rest:
        raise UsageError(
            f"The override '{text}' has a malformed key at '{rest}'.",
            fix="Write keys with dots, and items of a list in brackets: "
            "dataset.path_or_dataset_id[0].weight=2",
        ) from None
    if len(path) > MAX_DEPTH:
        raise UsageError(
            f"The override '{text[:40]}…' has a key of more than {MAX_DEPTH} parts.",
            fix="Check the dots.",
        )
    return path


def _value(text: str, override: str, depth: int) -> Any:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if _CLOCK.fullmatch(text):
        return text
    try:
        check_shape(text, depth)
        config = OmegaConf.from_dotlist([f"value={text}"])
        value = OmegaConf.to_container(config, resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(
            f"The value of the override '{override}' cannot be read: {problem.rstrip('.')}.",
            fix="Values are YAML. Put text with special characters in quotes inside the shell's: "
            "'key=\"text\"'.",
        ) from error
    read = value["value"] if isinstance(value, dict) else None
    if not is_plain(read):
        raise UsageError(
            f"The value of the override '{override}' is not plain data.",
            fix="Use text, numbers of at most 64 bits, lists, and tables whose keys are text.",
        )
    return read


def is_plain(value: Any) -> bool:
    """Whether a value is of the kinds that YAML, TOML and JSON all have."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(is_plain(item) for item in value)
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None or isinstance(value, str | float)
