"""The line of a file that a message points at, without the secrets in it."""

from __future__ import annotations

import functools
import re
from collections import deque
from pathlib import Path

from ..env.excerpt import Excerpts
from ..errors import Place
from ..secrets import MASK, is_secret_name, mask_text
from ..text import strip_controls

_LINES_BEFORE = 200
_WIDTH = 100
_PAIR = re.compile(r"""(?P<name>[\w.-]+)(?P<is>["']?\s*:\s+)(?P<value>[^,}\]\s][^,}\]]*)""")
_KEY = re.compile(r"""\s*(?:-\s+)?["']?(?P<name>[\w.-]+)["']?\s*:""")


def excerpt(place: Place) -> list[str]:
    """The line at a place and a caret below its column; empty if it cannot be shown.

    A secret's value in it is masked, and no caret drawn then: the columns are no longer the file's.
    """
    if place.file is None or place.line is None:
        return []
    if place.file.endswith(".toml"):
        return [strip_controls(text) for text in _toml().show(place)]
    before: deque[str] = deque(maxlen=_LINES_BEFORE)
    try:
        with Path(place.file).open(encoding="utf-8-sig", errors="replace") as file:
            for number, text in enumerate(file, start=1):
                before.append(text.rstrip("\n"))
                if number == place.line:
                    return [] if _below_secret(before) else _marked(text.rstrip("\n"), place)
    except OSError:
        pass
    return []


@functools.cache
def _toml() -> Excerpts:
    """One for the process: a file with a thousand findings is read once."""
    return Excerpts()


def _below_secret(lines: deque[str]) -> bool:
    """Whether the last line belongs to a secret that an outer line of the YAML names."""
    depth = _depth(lines[-1])
    for text in reversed(lines):
        if text.strip() and _depth(text) < depth:
            depth = _depth(text)
            key = _KEY.match(text)
            if key and is_secret_name(key["name"]):
                return True
    return False


def _depth(text: str) -> int:
    return len(text) - len(text.lstrip())


def _marked(text: str, place: Place) -> list[str]:
    safe = strip_controls(_PAIR.sub(_masked, mask_text(text)))
    if not safe.strip():
        return []
    if safe != text or place.column is None:
        return [safe[:_WIDTH].replace("\t", " ")]
    start = place.column - _WIDTH // 2 if place.column > _WIDTH else 0
    part = text[start : start + _WIDTH].replace("\t", " ")
    return [part, " " * (place.column - 1 - start) + "^"]


def _masked(pair: re.Match[str]) -> str:
    if not is_secret_name(pair["name"]) or pair["value"].lstrip("\"'").startswith("$"):
        return pair[0]
    return f"{pair['name']}{pair['is']}{MASK}"
