"""Which rank says what: several processes write into one log."""

from __future__ import annotations

import io
import os
import socket
import sys
from typing import TextIO


class MarkedStream(io.TextIOBase):
    """A text stream whose lines begin with `[rank3]: `, as torch marks its own tracebacks.

    Args:
        stream: where they go.
        rank: whose lines they are.
    """

    def __init__(self, stream: TextIO, rank: int) -> None:
        super().__init__()
        self.buffer = stream.buffer
        self._stream = stream
        self._mark = f"[rank{rank}]: "
        self._begins = True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # nothing sets it
        """That of the stream it takes the place of."""
        return self._stream.encoding

    def fileno(self) -> int:
        """The file itself; what writes to it past this stream is not marked."""
        return self._stream.fileno()

    def flush(self) -> None:
        """Hand on what waits."""
        self._stream.flush()

    def write(self, text: str, /) -> int:
        """Write a text, each line of it with the mark unless it has one."""
        marked = []
        for number, piece in enumerate(text.split("\n")):
            if number:
                marked.append("\n")
                self._begins = True
            if piece:
                bare = self._begins and not piece.startswith(self._mark)
                marked.append(f"{self._mark}{piece}" if bare else piece)
                self._begins = False
        self._stream.write("".join(marked))
        return len(text)


def mark_lines() -> None:
    """Have each of several ranks say who it is, and mark whatever those after the first print.

    The first speaks for the run: its lines stay bare. The ranks are those of torchrun's variables.
    """
    rank, ranks = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not rank.isdecimal() or ranks in ("", "1"):
        return
    if rank != "0":
        sys.stdout, sys.stderr = (MarkedStream(one, int(rank)) for one in (sys.stdout, sys.stderr))
    at = os.environ.get("LOCAL_RANK", "0")
    who = f"process {os.getpid()} on {socket.gethostname()}, local rank {at}"
    sys.stderr.write(f"[rank{rank}]: {who}\n")
