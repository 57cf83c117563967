"""Small things done to text: the nearest known word, and making outside text safe to show."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# ESC-introduced sequences (CSI, OSC, DCS and friends, two-character escapes), their 8-bit forms,
# then every control character but tab and newline. ECMA-48, sections 5 and 8.
_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_LONGEST_LINE = 4096


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was most likely meant to be, or None if none is close."""
    candidates = list(known)
    folded = {name.casefold().replace("-", "_"): name for name in candidates}
    same = folded.get(word.casefold().replace("-", "_"))
    if same is not None:
        return same
    matches = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known word, or an empty string."""
    match = nearest(word, known)
    return f"Did you mean '{match}'?" if match else ""


def holds(text: str, words: str) -> bool:
    """Whether each of several words stands somewhere in a text, capitals or not."""
    folded = text.casefold()
    return all(word in folded for word in words.casefold().split())


def counted(number: int, word: str, plural: str = "") -> str:
    """A number with its word: `1 node`, `2 nodes`; `plural` where an s does not make it."""
    return f"{number} {word if number == 1 else plural or f'{word}s'}"


def four_digits(value: float) -> str:
    """A measured number to four digits; up to ten million whole, and not by an exponent."""
    return f"{value:.0f}" if 9999.5 <= abs(value) < 9999999.5 else f"{value:.4g}"


def shown_line(line: bytes) -> str:
    """A log line as a terminal may see it: a bar as it was last drawn, and of a long one a part."""
    last_drawn = line.rstrip(b"\r").rpartition(b"\r")[2]
    text = strip_controls(last_drawn.decode(errors="replace"))
    return text if len(text) <= _LONGEST_LINE else text[: _LONGEST_LINE - 1] + "…"


def strip_controls(text: str) -> str:
    """Take out escape sequences and control characters, so that a terminal only ever sees text."""
    return _CONTROLS.sub("", _SEQUENCES.sub("", text))
