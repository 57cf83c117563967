"""Following a job's log over there, byte for byte from any byte on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from ..ssh import Machine
from ..states import Status
from .base import LogLine

_CHUNK = 4 << 20
_QUICK_S, _SLOW_S = 0.2, 1.0
"""Between two looks at a log: at first after something came, and at most."""

_PACE_S = 10.0
_CLOSING_PACE_S = 0.5
_LAST_WORD = b"tunedeck: exit="


async def read_log(machine: Machine, path: str, offset: int) -> AsyncGenerator[LogLine]:
    """The whole lines that are there now, from a byte on."""
    lines = _Lines(offset)
    while data := await machine.read(path, lines.read, _CHUNK):
        for line in lines.of(data):
            yield line


async def follow_log(
    machine: Machine, path: str, offset: int, status: Callable[[], Awaitable[Status]]
) -> AsyncGenerator[LogLine]:
    """Lines from a byte on, as they are written, until the job has ended and the last one is read.

    Raises:
        ReachError: if the connection is lost; go on from the last cursor.
    """
    lines, pause_s = _Lines(offset), _QUICK_S
    last_word = asyncio.Event()
    ended = asyncio.create_task(_until_ended(status, last_word))
    try:
        while True:
            over = ended.done()  # what was written before the end is there to be read after it
            data = await machine.read(path, lines.read, _CHUNK)
            for line in lines.of(data):
                if line.line.startswith(_LAST_WORD):
                    last_word.set()
                yield line
            if data:
                pause_s = _QUICK_S
            elif over:
                await ended
                break
            else:
                await asyncio.wait([ended], timeout=pause_s)
                pause_s = min(pause_s * 1.2, _SLOW_S)
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
    if lines.pending:
        yield LogLine(lines.pending, str(lines.read))


class _Lines:
    """Cuts bytes into lines and counts them.

    Attributes:
        read: bytes from the start of the log that have been seen.
        pending: the start of a line that is not whole yet.
    """

    def __init__(self, offset: int) -> None:
        self.read = offset
        self.pending = b""

    def of(self, data: bytes) -> list[LogLine]:
        """The lines that `data` completes."""
        *whole, rest = (self.pending + data).split(b"\n")
        position = self.read - len(self.pending)
        self.read += len(data)
        self.pending = rest
        found = []
        for line in whole:
            position += len(line) + 1
            found.append(LogLine(line, str(position)))
        return found


async def _until_ended(status: Callable[[], Awaitable[Status]], last_word: asyncio.Event) -> None:
    """Look now and then, and often once the log has said its last word."""
    while not (await status()).state.terminal:
        try:
            await asyncio.wait_for(last_word.wait(), _PACE_S)
        except TimeoutError:
            continue
        await asyncio.sleep(_CLOSING_PACE_S)
