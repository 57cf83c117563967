"""Network actions of a screen: each is seen to go on, and can be given up at any moment."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from textual.message import Message

from ..core.errors import TunedeckError
from .background import Broken, Failed

if TYPE_CHECKING:
    from textual.message_pump import MessagePump

T = TypeVar("T")

asked_for: ContextVar[bool] = ContextVar("asked_for", default=False)
"""Whether what goes on was asked for by the person: only then may a login ask back."""


class Errand:
    """Something asked of the network, in a thread with an event loop of its own.

    `what` may be changed while it goes on. Given up, it is cancelled; whatever still comes of it is
    dropped, also where a call cannot be interrupted.

    Args:
        owner: gets what came of it, or `Failed`.
        what: what goes on, in words: `Asking login.cluster`.
        work: is awaited.
        tell: makes the message from what it returns.
        given_up: what to tell where it is given up.
    """

    def __init__(
        self,
        owner: MessagePump,
        what: str,
        work: Callable[[], Awaitable[T]],
        tell: Callable[[T], Message],
        given_up: Message | None = None,
    ) -> None:
        self.what = what
        self.done = False
        self._owner, self._given_up = owner, given_up
        self._began = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._lock = threading.Lock()

        async def errand() -> None:
            token = asked_for.set(True)
            try:
                result = await work()
            finally:
                asked_for.reset(token)
            self._finish(tell(result))

        self._thread = threading.Thread(target=self._run, args=(errand,), daemon=True)

    def start(self) -> None:
        """Begin."""
        self._began = time.monotonic()
        self._thread.start()

    @property
    def seconds(self) -> int:
        """How long it has gone on."""
        return int(time.monotonic() - self._began)

    def give_up(self) -> None:
        """Cancel it, and tell its owner at once."""
        self._finish(self._given_up)
        with self._lock:
            if self._loop is not None and self._task is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._task.cancel)

    def _run(self, errand: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            task = asyncio.ensure_future(errand())
            with self._lock:
                self._loop, self._task = asyncio.get_running_loop(), task
                if self.done:
                    task.cancel()
            await task

        try:
            asyncio.run(main())
        except asyncio.CancelledError:
            self._finish(self._given_up)
        except (TunedeckError, OSError) as error:
            self._finish(Failed(error))
        except BaseException as error:  # noqa: BLE001 - shown by the app, never swallowed
            self._finish(None)
            self._owner.app.post_message(Broken(error))

    def _finish(self, message: Message | None) -> None:
        with self._lock:
            if self.done:
                return
            self.done = True
        if message is not None:
            self._owner.post_message(message)
