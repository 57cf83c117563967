"""Following a file that grows: each line once, the last when no more will come."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from .base import LogLine

_CHUNK = 1 << 18
_QUICK_S, _SLOW_S = 0.02, 0.25
"""Polled, since file notifications say nothing on network file systems."""


async def tail(
    path: Path, offset: int, ended: Callable[[], Awaitable[bool]], *, follow: bool
) -> AsyncGenerator[LogLine]:
    """Lines of `path` from a byte offset on, split at newlines alone, byte for byte.

    A last line without a newline is given out once `ended` says that no more will come. A file that
    has become shorter was replaced, and is read from its start.

    Args:
        path: the file; it need not be there yet.
        offset: where the first line starts; the cursor of each line is where the next one does.
        ended: whether the writer is done. Asked only at the end of the file.
        follow: wait for more until `ended`; else stop at the end of the file.
    """
    async with aclosing(ticking_tail(path, offset, ended)) as entries:
        async for entry in entries:
            if entry is not None:
                yield entry
            elif not follow:
                break


async def ticking_tail(
    path: Path, offset: int, ended: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[LogLine | None]:
    """As `tail` with `follow`, but None each time there is nothing new, before it waits."""
    pending = b""
    idle_s = _QUICK_S
    done = False
    while True:
        data = _read(path, offset + len(pending))
        if data is None:
            pending, offset, data = b"", 0, b""
        if data:
            idle_s = _QUICK_S
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                offset += len(line) + 1
                yield LogLine(line, str(offset))
            await asyncio.sleep(0)  # a long log must not keep others waiting
        elif done:
            break
        elif await ended():
            done = True  # what was written between the read above and the end is read now
        else:
            yield None
            await asyncio.sleep(idle_s)
            idle_s = min(idle_s * 1.5, _SLOW_S)
    if pending:
        yield LogLine(pending, str(offset + len(pending)))


def _read(path: Path, position: int) -> bytes | None:
    """The next bytes, none at the end of the file, None if the file ends before `position`."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return b"" if position == 0 else None
    try:
        data = os.pread(file, _CHUNK, position)
        return None if not data and os.fstat(file).st_size < position else data
    finally:
        os.close(file)
