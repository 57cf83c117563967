"""Calls that block, in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def apart(work: Callable[[], T]) -> T:
    """The outcome of a call, made in a thread of its own.

    Unlike `asyncio.to_thread`, it does not hold up a program that leaves: an answer that does not
    come, or an upload of an hour, must not keep Ctrl-C from ending it.

    Raises:
        Exception: what the call raises.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def tell(say: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(lambda: None if outcome.done() else say())

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            told = error
            tell(lambda: outcome.set_exception(told))
        else:
            tell(lambda: outcome.set_result(result))

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), daemon=True).start()
    return await outcome
