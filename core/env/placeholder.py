"""Telling a value from one that was meant to be replaced."""

from __future__ import annotations

import re
from functools import lru_cache

_BRACKETS = re.compile(r"<[A-Za-z][\w./:-]*(?: [\w./:-]+)*>|\[(?:your|my)[ _-][\w -]+\]", re.I)
_WORDS = re.compile(
    r"(?<![A-Za-z])(?:replace|change|fill)[ _-]?(?:me|this)(?![a-z])"
    r"|(?<![A-Za-z])fill[ _-]?(?:me[ _-]?)?in(?![a-z])"
    r"|(?<![A-Za-z])(?:your|insert)[_-](?=[a-z])"
    r"|(?<![A-Za-z])placeholder(?![a-z])"
    r"|/path/to(?:/|$)"
    r"|^masked-|(?<=/)masked-"
    r"|(?<![\w-])example\.(?:com|org|net|edu)(?![\w-]|\.\w)|[\w-]\.example(?![\w-]|\.\w)",
    re.IGNORECASE,
)
_MARKS = re.compile(r"(?<![A-Za-z0-9_])(?:TODO|TBD|FIXME|XXX+)(?![A-Za-z0-9_])|^\?\?\?$")
_WHOLE = frozenset({"lepton-node-group", "..."})
"""Values that shipped templates have and that no site is called."""


@lru_cache(maxsize=4096)
def placeholder_in(text: str, *, command: bool = False) -> str | None:
    """The placeholder that text holds, or None. In a command, brackets redirect."""
    if text in _WHOLE:
        return text
    for pattern in (_WORDS, _MARKS, *(() if command else (_BRACKETS,))):
        if found := pattern.search(text):
            return str(found[0])
    return None


def is_placeholder(text: str) -> bool:
    """Whether text is a placeholder and nothing else, so that it is no secret either."""
    stripped = text.strip()
    if stripped in _WHOLE or _BRACKETS.fullmatch(stripped) or _MARKS.fullmatch(stripped):
        return True
    return bool(re.fullmatch(r"[A-Z_-]+|[a-z_-]+", stripped) and _WORDS.search(stripped))
