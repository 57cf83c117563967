"""Staying attached to a run: its log and curves until it ends, and what Ctrl-C does meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from ..errors import TunedeckError
from ..launch import cancel
from ..runs.watch import Changed, Line, backend_of, watch
from ..states import RunState
from .ending import ending_json, print_ending
from .live import JsonView, LiveView, PlainView, View
from .output import note, print_json

if TYPE_CHECKING:
    from ..backends.base import Backend
    from ..logs.log_filter import LogFilter
    from ..runs.record import RunRecord
    from ..runs.registry import Registry

_SECOND_THOUGHT_S = 3.0
_REDRAW_S = 0.1


def follow_run(
    record: RunRecord,
    registry: Registry,
    *,
    as_json: bool = False,
    as_stream: bool = False,
    offset: int = 0,
    wanted: LogFilter | None = None,
) -> int:
    """Show a run until it ends, and return the exit code of its fate.

    Ctrl-C leaves the run alone and says how to come back; a second one, soon after, cancels it.

    Args:
        record: the run.
        registry: kept up to date on the way.
        as_json: print one JSON document at the end on stdout, and the log on stderr.
        as_stream: print the log on stdout, as an object a line.
        offset: the byte of the log to start from.
        wanted: which lines are shown; all by default.

    Raises:
        TunedeckError: if the run's place refuses to tell; the run itself is left alone.
    """
    view = JsonView() if as_stream else _view(record, as_json)
    follower = _Follower(record, registry, view, offset)
    if wanted:
        follower.shows = wanted.chooser()
    try:
        code = asyncio.run(follower.follow())
    except TunedeckError:  # of following it, such as a token that has run out
        if not follower.record.state.terminal:
            note(f"{record.run_id} ({record.name}) is left alone.")
            note(f"  See it:    tunedeck runs logs -f {record.run_id}")
        raise
    if follower.record.state.terminal:
        print_ending(follower.record, err=as_json or as_stream)
    if as_json:
        print_json(ending_json(follower.record))
    return code


def _view(record: RunRecord, as_json: bool) -> View:
    if as_json:
        return PlainView(sys.stderr)
    if sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb"):
        return LiveView(record)
    return PlainView(sys.stdout)


class _Follower:
    """Shows one run and answers signals."""

    def __init__(self, record: RunRecord, registry: Registry, view: View, offset: int) -> None:
        self.record = record
        self._registry = registry
        self._backend: Backend = backend_of(record)
        self._view = view
        self._offset = offset
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self.shows: Callable[[bytes], bool] = lambda _line: True

    async def follow(self) -> int:
        """Until the run has ended or a signal says to leave; the exit code."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(name, self._signals.put_nowait, name)
        showing = asyncio.create_task(self._show())
        try:
            number = await self._signal_before(showing)
            if number is signal.SIGINT and await self._cancel_wanted(showing):
                return await self._cancel()
            return self.record.state.exit_code if number is None else 128 + number
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)

    async def _show(self) -> None:
        drawing = asyncio.create_task(self._draw())
        if self.record.state is RunState.QUEUED:  # it may be long before anything changes
            self._view.show(Changed(self.record))
        try:
            events = watch(self.record, self._backend, self._registry, offset=self._offset)
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Line) and not self.shows(event.line):
                        continue
                    self._view.show(event)
                    if isinstance(event, Changed):
                        self.record = event.record
        finally:
            drawing.cancel()
            self._view.close()

    async def _draw(self) -> None:
        while True:
            self._view.draw()
            await asyncio.sleep(_REDRAW_S)

    async def _signal_before(self, task: asyncio.Task[None]) -> signal.Signals | None:
        """The next signal, or None if the task ends before one comes.

        Raises:
            TunedeckError: what the task ended with.
        """
        signalled = asyncio.create_task(self._signals.get())
        await asyncio.wait([task, signalled], return_when=asyncio.FIRST_COMPLETED)
        if signalled.done():
            return signalled.result()
        signalled.cancel()
        if task.done():
            task.result()
        return None

    async def _cancel_wanted(self, showing: asyncio.Task[None]) -> bool:
        """Stop showing, say what goes on, and wait for a second Ctrl-C."""
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        run_id = self.record.run_id
        note("")
        note(f"{run_id} ({self.record.name}) goes on without this window.")
        note(f"  See it:    tunedeck runs logs -f {run_id}")
        note(f"  Cancel it: tunedeck runs cancel {run_id}")
        note(f"  or press Ctrl-C again within {_SECOND_THOUGHT_S:.0f} s.")
        second_thought = asyncio.create_task(asyncio.sleep(_SECOND_THOUGHT_S))
        again = await self._signal_before(second_thought)
        second_thought.cancel()
        return again is signal.SIGINT

    async def _cancel(self) -> int:
        note(f"Cancelling {self.record.run_id} …")
        cancelling = asyncio.create_task(self._cancelled())
        impatient = await self._signal_before(cancelling)
        if impatient is not None:
            cancelling.cancel()
            await asyncio.gather(cancelling, return_exceptions=True)
            note("Left before the end was confirmed. See it: tunedeck runs list")
            return 128 + impatient
        return self.record.state.exit_code

    async def _cancelled(self) -> None:
        self.record = await cancel(self.record, self._backend, self._registry)
