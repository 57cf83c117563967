"""The exit code that a run means. Torchrun does not hand it on: it makes a 1 of every failure."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_VARIABLE = "TUNEDECK_EXIT_FILE"
"""Names the file, if the launcher wants to know."""
_STARTED = time.time()


def tell(code: int, *, over: int | None = None) -> None:
    """Write how this process ended, if that is how the run did.

    A success is the first rank's to tell, any other end that of the rank that came to it first: it
    ends the others, which lose their connection to it, or are told to stop by torchrun.

    Args:
        code: its exit code.
        over: a code that may have been told, and is wrong.
    """
    file = os.environ.get(_VARIABLE)
    if file and (told() in (None, over) if code else os.environ.get("RANK", "0") == "0"):
        # On a full disk the exit code itself has to do.
        with contextlib.suppress(OSError):
            Path(file).write_text(f"{code}\n")


def asked() -> bool:
    """Whether the launcher wants to know."""
    return bool(os.environ.get(_VARIABLE))


def told() -> int | None:
    """What was told since this process started; None where nothing was, or nobody wants to know."""
    file = Path(os.environ.get(_VARIABLE, ""))
    try:
        return int(file.read_text()) if file.stat().st_mtime >= _STARTED else None
    except (OSError, ValueError):
        return None
