"""The line on a terminal that tells how much of a file has gone or come."""

from __future__ import annotations

import sys
import time

from ..text import strip_controls

_REDRAW_S = 0.1


def transfer_words(verb: str, name: str, here: int, whole: int) -> str:
    """How much of a file has gone or come, in words."""
    return strip_controls(f"{verb} {name}: {here / 1e6:.1f} of {whole / 1e6:.1f} MB")


class TransferLine:
    """One line on stderr, drawn over itself; nothing where that is no terminal.

    Args:
        verb: what is going on, such as "Uploading".
    """

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._shows = sys.stderr.isatty()
        self._drawn_at: float | None = None

    def show(self, name: str, here: int, whole: int) -> None:
        """Draw it, unless that was done just now."""
        now = time.monotonic()
        recently = self._drawn_at is not None and now - self._drawn_at < _REDRAW_S
        if not self._shows or (recently and here < whole):
            return
        self._drawn_at = now
        sys.stderr.write(f"\r{transfer_words(self._verb, name, here, whole)}\x1b[K")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take it away."""
        if self._drawn_at is not None:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn_at = None
