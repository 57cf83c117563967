"""Following a job's log over there, byte for byte from any byte on.

It comes in blocks of whole lines, as many as there are at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from ...ssh import Machine
from ...states import Status
from ..base import LogLine
from ..ending import LAST_WORD

_CHUNK = 4 << 20
_QUICK_S, _SLOW_S = 0.2, 1.0
"""Between two looks at a log: at first after something came, and at most."""

_PACE_S, _SLOWEST_PACE_S = 10.0, 30.0
_CLOSING_PACE_S = 0.5
_OVERLAP = 64
_ROTATED = ".1"
"""What logrotate and its like name the file that they take away."""


async def lines_of(blocks: AsyncGenerator[LogLine]) -> AsyncGenerator[LogLine]:
    """The single lines of blocks, each with its own cursor."""
    async with aclosing(blocks):
        async for block in blocks:
            lines = block.line.split(b"\n")
            position = int(block.cursor) - len(block.line) - block.whole
            for line in lines[:-1]:
                position += len(line) + 1
                yield LogLine(line, str(position))
            yield LogLine(lines[-1], block.cursor, whole=block.whole)


async def read_log(machine: Machine, path: str, offset: int) -> AsyncGenerator[LogLine]:
    """The whole lines that are there now, from a byte on."""
    log = _Log(machine, path, offset)
    while await log.more():
        if block := log.block():
            yield block


async def follow_log(
    machine: Machine, path: str, offset: int, status: Callable[[], Awaitable[Status]]
) -> AsyncGenerator[LogLine]:
    """Lines from a byte on, as they are written, until the job has ended and the last one is read.

    A log that is truncated or replaced on the way goes on with the new one; what had not been read
    is taken from the rotated one beside it, where there is one.

    Raises:
        ReachError: if the connection is lost; go on from the last cursor.
    """
    log, pause_s = _Log(machine, path, offset), _QUICK_S
    last_word = asyncio.Event()
    ended = asyncio.create_task(_until_ended(status, last_word))
    try:
        while True:
            over = ended.done()  # what was written before the end is there to be read after it
            if await log.more():
                pause_s = _QUICK_S
                if block := log.block():
                    if b"\n" + LAST_WORD in b"\n" + block.line:
                        last_word.set()
                    yield block
            elif over:
                await ended
                break
            else:
                await asyncio.wait([ended], timeout=pause_s)
                pause_s = min(pause_s * 1.2, _SLOW_S)
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
    if log.pending:
        yield LogLine(log.pending, str(log.position), whole=False)


class _Log:
    """Reads a log on, and notices when it is another file.

    Attributes:
        position: bytes from the start of the file that have been read.
        pending: what has been read and not been given out: at its end, a line that is not whole.
    """

    def __init__(self, machine: Machine, path: str, offset: int) -> None:
        self._machine, self._path = machine, path
        self.position = offset
        self.pending = b""
        self._last = b""  # the bytes before the position, by which the file is known again
        self._rotated: str | None = None

    async def more(self) -> bool:
        """Read on; whether there was anything."""
        if self._rotated is not None:
            data = await self._machine.read(self._rotated, self.position, _CHUNK)
            if data:
                return self._take(data)
            self._rotated, self.position, self._last = None, 0, b""
        overlap = len(self._last) or (1 if self.position else 0)
        data = await self._machine.read(self._path, self.position - overlap, _CHUNK)
        same = len(data) >= overlap and data.startswith(self._last)
        if same:
            return self._take(data[overlap:])
        if not data and not await self._machine.read(self._path, 0, 1):
            return False  # emptied, or away: what comes next is read from its start
        await self._begin_anew()
        return await self.more()

    async def _begin_anew(self) -> None:
        """Go on with what was rotated away, if it is that which was read, else at the start."""
        rotated, overlap = self._path + _ROTATED, len(self._last)
        before = await self._machine.read(rotated, self.position - overlap, overlap or 1)
        if before and before.startswith(self._last):
            self._rotated = rotated
        else:
            self.position, self._last = 0, b""

    def _take(self, data: bytes) -> bool:
        self.pending += data
        self.position += len(data)
        self._last = (self._last + data[-_OVERLAP:])[-_OVERLAP:]
        return bool(data)

    def block(self) -> LogLine | None:
        """The whole lines that are pending."""
        whole, newline, rest = self.pending.rpartition(b"\n")
        if not newline:
            return None
        self.pending = rest
        return LogLine(whole, str(self.position - len(rest)))


async def _until_ended(status: Callable[[], Awaitable[Status]], last_word: asyncio.Event) -> None:
    """Look now and then, ever more rarely; and often once the log has said its last word."""
    pace_s = _PACE_S
    while not (await status()).state.terminal:
        try:
            await asyncio.wait_for(last_word.wait(), pace_s)
        except TimeoutError:
            pace_s = min(pace_s * 1.25, _SLOWEST_PACE_S)
            continue
        await asyncio.sleep(_CLOSING_PACE_S)
