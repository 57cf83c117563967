"""What a run prints, a line at a time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping


def say(line: str) -> None:
    """Print one line now, on the first rank: a follower of the log sees it at once."""
    if os.environ.get("RANK", "0") != "0":
        return
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def line(values: Mapping[str, float | int | str]) -> str:
    """A logfmt line; numbers have seven significant digits, text is quoted as JSON."""
    return " ".join(f"{key}={_shown(value)}" for key, value in values.items())


def _shown(value: float | int | str) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value) if isinstance(value, int) else f"{value:.7g}"
