"""Keys in the order in which they were typed, each once what the one before it began is done."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from textual import events
from textual.app import ScreenStackError
from textual.widgets import Input

from .background import Broken

if TYPE_CHECKING:
    from textual.app import App

_LOOK_S = 0.01
_LONGEST_S = 5.0
"""How long a screen that is still being filled is waited for."""
_QUIET = 3
_TURNS = 200
_AT_ONCE = ("escape", "ctrl+q", "ctrl+z", "f1")
"""Never held: they are how one gets away from what takes long."""


class TypeAhead:
    """Holds keys back until there is something that takes them.

    Someone who knows the way types faster than screens are made, and so does a script. A screen
    tells by its attribute `ready` whether it has what keys act on; one without it always has.

    Args:
        app: whose keys these are.
        deliver: hands a key to whatever has the focus.
    """

    def __init__(self, app: App[None], deliver: Callable[[events.Event], Awaitable[None]]) -> None:
        self._app, self._deliver = app, deliver
        self._held: deque[events.Key] = deque()
        self._working: asyncio.Task[None] | None = None

    async def take(self, event: events.Key) -> None:
        """Deliver a key, now or after those that came before it."""
        if event.key == "ctrl+j":
            # What enter sends before the wizard has the terminal for itself.
            event = events.Key("enter", "\r")
        if self._working is None and self._ready():
            plain = self._types and event.is_printable
            await self._deliver(event)
            if plain:
                return
            self._working = asyncio.create_task(self._work())
        elif event.key in _AT_ONCE and not self._ready():
            self._held.clear()
            await self._deliver(event)
        elif event.key == "question_mark" and not self._held and not self._types:
            # Help is about what one waits for, and esc, which is not held, is to leave it.
            await self._deliver(event)
        else:
            self._held.append(event)
            if self._working is None:
                self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            await self._settle()
            while self._held:
                since = time.monotonic()
                while not self._ready() and time.monotonic() - since < _LONGEST_S:
                    await asyncio.sleep(_LOOK_S)
                if self._held:
                    await self._deliver(self._held.popleft())
                await self._settle()
        except Exception as error:  # noqa: BLE001 - shown by the app, never swallowed
            self._app.post_message(Broken(error))
        finally:
            self._working = None

    @property
    def _types(self) -> bool:
        return isinstance(self._app.focused, Input)

    def _ready(self) -> bool:
        try:
            screen = self._app.screen
        except ScreenStackError:
            return False
        return screen.is_mounted and bool(getattr(screen, "ready", True))

    async def _settle(self) -> None:
        """Wait until nothing is on its way between the widgets, or for a moment at most."""
        quiet = 0
        for _ in range(_TURNS):
            await asyncio.sleep(0)
            try:
                nodes = (self._app, *self._app.screen_stack, *self._app.screen.walk_children())
            except ScreenStackError:
                continue
            quiet = 0 if any(node.message_queue_size for node in nodes) else quiet + 1
            if quiet == _QUIET:
                return
