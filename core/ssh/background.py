"""An event loop of its own for connections, so that they outlive the `asyncio.run` of a command.

A command runs several (prepare, launch, follow); a login that asks for a second factor must be
asked once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

from ..errors import TunedeckError

T = TypeVar("T")

_THREAD = "ssh"


@cache
def loop() -> asyncio.AbstractEventLoop:
    """The loop that all connections of this process live in; started when it is first needed."""
    made = asyncio.new_event_loop()
    made.set_exception_handler(_told_elsewhere)
    logging.getLogger("asyncio").addFilter(_is_ours_to_tell)
    threading.Thread(target=made.run_forever, name=_THREAD, daemon=True).start()
    return made


def _is_ours_to_tell(record: logging.LogRecord) -> bool:
    """Whether asyncio says more than that a connection went away under what was sent on it."""
    return record.threadName != _THREAD or record.levelno > logging.WARNING


def _told_elsewhere(here: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Keep a lost connection out of the terminal where no one waits any more for what it ended.

    asyncssh reads a file by several tasks: each of them fails of it, and the first one tells.
    """
    import asyncssh

    lost = (asyncssh.Error, OSError, TunedeckError)
    if not isinstance(context.get("exception"), lost):
        here.default_exception_handler(context)


async def over_there(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in that loop and wait for it here. Cancelled here, it is cancelled there."""
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop()))
