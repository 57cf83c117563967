"""`${oc.env:NAME,default}` and the other OmegaConf interpolations, resolved once a plan is made."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import Any

from ..interpolation import value_at
from .inherit import LeafPath, nested
from .interpolation_problem import (
    ENV,
    PLAIN_NAME,
    REFERENCE,
    InterpolationProblem,
    Leaves,
    explain,
    unending,
)

_NOT_ENV = re.compile(r"(?<!\\)\$\{\s*(?!oc\.env\s*:)")
_PART = "\0part"  # a key that no profile has


def env_names(text: str) -> list[str]:
    """The environment variables that text reads by `${oc.env:NAME…}`, in their order.

    Raises:
        InterpolationProblem: if a name is not written out; whether it is a secret's could not be
            told before it is read.
    """
    names = []
    for match in ENV.finditer(text):
        plain = PLAIN_NAME.fullmatch(match["name"])
        if plain is None:
            raise InterpolationProblem(
                f"In '{text}' the name of an environment variable is not written out.",
                "Write it like this: ${oc.env:NAME} or ${oc.env:NAME,default}",
            )
        names.append(plain["name"])
    return names


def reads_keys(value: Any) -> bool:
    """Whether a value refers to other keys, or to anything but environment variables."""
    return _holds_interpolation(value) and _NOT_ENV.search(str(value)) is not None


class Interpolator:
    """Resolves texts with OmegaConf, equal parts of them once.

    OmegaConf takes milliseconds for a whole profile, and a thousand profiles share their parents'
    texts. What a part came to is kept: one that reads only environment variables means the same
    everywhere, one that names other keys the same wherever those have the same values.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Any] = {}

    def resolve(self, value: Any, path: LeafPath, tree: Leaves) -> Any:
        """A leaf's value with all interpolations resolved.

        Args:
            value: text, or a list or table that may hold text.
            path: the leaf's path in the profile.
            tree: the profile's raw leaves, for `${other_key}`. Secrets must not be among them.

        Raises:
            InterpolationProblem: if an environment variable is missing and has no default, a key or
                resolver does not exist, keys refer to each other in a circle, or the text is not
                well formed.
        """
        if not _holds_interpolation(value):
            return value
        if not _is_plain(str(value)):
            return _evaluate(nested({k: _plain(v) for k, v in tree.items()}), path, path, tree)
        return self._each(value, path, tree)

    def _each(self, value: Any, path: LeafPath, tree: Leaves) -> Any:
        if isinstance(value, list):
            return [self._each(item, path, tree) for item in value]
        if isinstance(value, dict):
            return {key: self._each(item, path, tree) for key, item in value.items()}
        if not isinstance(value, str) or "${" not in value:
            return value
        parts = [self._part(part, path, tree) for part in _parts(value)]
        return parts[0] if len(parts) == 1 else "".join(map(str, parts))

    def _part(self, text: str, path: LeafPath, tree: Leaves) -> Any:
        if "${" not in text:
            return text
        needed = sorted(_needed(text, tree)) if reads_keys(text) else []
        depends_on = (text, *((key, str(tree[key])) for key in needed))
        if depends_on not in self._known:
            table = nested({key: _plain(tree[key]) for key in needed})
            self._known[depends_on] = _evaluate({**table, _PART: text}, (_PART,), path, tree)
        return self._known[depends_on]


def _evaluate(table: dict[str, Any], where: LeafPath, path: LeafPath, tree: Leaves) -> Any:
    """What OmegaConf makes of the value at `where`; it is told of as the leaf at `path`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return value_at(OmegaConf.create(table), where)
    except RecursionError:
        raise unending(path, tree) from None
    except OmegaConfBaseException as error:
        raise explain(path, tree, str(error)) from None


def _is_plain(text: str) -> bool:
    """Whether all that a text reads is environment variables and keys by their full names."""
    return len(REFERENCE.findall(text)) == len(_NOT_ENV.findall(text))


def _needed(text: str, tree: Leaves) -> Iterable[LeafPath]:
    """The leaves that a text depends on; where their own texts do not tell, all there are."""
    needed: set[LeafPath] = set()
    waiting = [text]
    while waiting:
        text = waiting.pop()
        if not _is_plain(text):
            return tree
        for match in REFERENCE.finditer(text):
            wanted = tuple(match["key"].split("."))
            for known in tree:
                if known[: len(wanted)] == wanted and known not in needed:
                    needed.add(known)
                    waiting.append(str(tree[known]))
    return needed


def _parts(text: str) -> list[str]:
    """Text cut into plain stretches and whole interpolations.

    Where quotes or escapes could hide a brace, it is not cut at all.
    """
    if "\\" in text or '"' in text or "'" in text.replace("''", ""):
        return [text]
    parts: list[str] = []
    start = depth = position = 0
    while position < len(text):
        if text.startswith("${", position):
            if depth == 0 and position > start:
                parts.append(text[start:position])
                start = position
            depth += 1
            position += 2
            continue
        if text[position] == "}" and depth:
            depth -= 1
            if depth == 0:
                parts.append(text[start : position + 1])
                start = position + 1
        position += 1
    return [*parts, text[start:]] if start < len(text) else parts


def _holds_interpolation(value: Any) -> bool:
    if isinstance(value, list):
        return any(_holds_interpolation(item) for item in value)
    if isinstance(value, dict):
        return any(_holds_interpolation(item) for item in value.values())
    return isinstance(value, str) and "${" in value


def _plain(value: Any) -> Any:
    """A value as OmegaConf takes it: TOML's dates and times become text."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return value
