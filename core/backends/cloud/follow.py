"""Reading a log that is streamed, over cut streams and streams that forget to end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress

from ..base import LogLine
from ..ending import LAST_WORD
from .errors import Passing

Open = Callable[[str | None], AsyncGenerator[LogLine]]

REOPEN_S = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Between one stream and the next while nothing comes."""

LOOK_S = 10.0
"""After so long without a line, a look whether the job still runs."""

CLOSING_LOOK_S = 0.5
"""The same once the log has said its last word."""

QUIET_S = 3.0
"""How long a job that has ended may say nothing before its log counts as read."""


async def follow(
    open_stream: Open,
    cursor: str | None,
    ended: Callable[[], Awaitable[bool]],
    *,
    wait: bool,
) -> AsyncGenerator[LogLine]:
    """Lines after a cursor, each once, over any number of streams.

    Args:
        open_stream: opens a stream that begins right after a cursor (None: with the first line). It
            ends, or raises `Passing` when it is cut.
        cursor: where to begin.
        ended: whether the job has ended, so that nothing more will be written.
        wait: whether to go on until the job has ended and its last line is read; else what there
            is now is read.

    Raises:
        Passing: if no line comes over several streams one after another that were cut; go on from
            the last cursor.
        TunedeckError: if the service refuses.
    """
    failures, said_last = 0, False
    while True:
        over = not wait or await ended()
        if over and said_last:
            return
        reading = _Reading(open_stream(cursor), ended, over=over)
        try:
            async with aclosing(reading.lines()) as lines:
                async for entry in lines:
                    failures, cursor = 0, entry.cursor
                    said_last = entry.line.startswith(LAST_WORD)
                    yield entry
            if over:
                return
        except Passing:
            if failures >= len(REOPEN_S):
                raise
        if not reading.over:
            await asyncio.sleep(REOPEN_S[min(failures, len(REOPEN_S) - 1)])
        failures += 1


class _Reading:
    """One stream, left when it is quiet and its job has ended.

    Attributes:
        over: whether the job has ended.
    """

    def __init__(
        self,
        stream: AsyncGenerator[LogLine],
        ended: Callable[[], Awaitable[bool]],
        *,
        over: bool,
    ) -> None:
        self.over = over
        self._stream = stream
        self._ended = ended
        self._said_last = False

    async def lines(self) -> AsyncGenerator[LogLine]:
        """Its lines."""
        coming = asyncio.ensure_future(anext(self._stream, None))
        try:
            while True:
                done, _ = await asyncio.wait([coming], timeout=self._patience())
                if not done:
                    if self.over:
                        return
                    self.over = await self._ended()
                    continue
                entry = coming.result()
                if entry is None:
                    return
                self._said_last = entry.line.startswith(LAST_WORD)
                yield entry
                coming = asyncio.ensure_future(anext(self._stream, None))
        finally:
            coming.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await coming
            await self._stream.aclose()

    def _patience(self) -> float:
        if self._said_last:
            return CLOSING_LOOK_S
        return QUIET_S if self.over else LOOK_S
