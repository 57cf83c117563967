"""Screens as text, held against files; what changes from run to run is blotted out.

After a change that is meant, write them anew and look at the diff:

    WRITE_SNAPSHOTS=1 python -m pytest tests/tui/test_snapshots.py
"""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

_FOLDER = Path(__file__).parent / "snapshots"
_CHANGING = (
    re.compile(r"(?<=\br)1[0-9a-hjkmnp-tv-z]{11}\b"),  # run ids
    re.compile(r"(?<=sha256:)[0-9a-f]+"),
    re.compile(r"(?<=/tmp/td-)\w{8}"),
)


def blotted(text: str) -> str:
    """The text with what changes from run to run made the same, in as many columns."""
    for pattern in _CHANGING:
        text = pattern.sub(lambda match: "·" * len(match[0]), text)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def check(text: str, name: str) -> None:
    """Hold a screen against its file.

    Raises:
        AssertionError: if they differ, with the difference.
    """
    file, now = _FOLDER / f"{name}.txt", blotted(text)
    if os.environ.get("WRITE_SNAPSHOTS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(now, encoding="utf-8")
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), "as it was", "as it is")
    assert now == before, "\n".join(lines)
