"""Threads beside a run's screen that read, measure and watch, and tell it by messages."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.charts.curves import PointReader
from ...core.errors import AuthenticationError, ReachError, TunedeckError
from ...core.logs.filtered_reader import FilteredReader
from ...core.logs.spool import bring_home, load_state
from ...core.logs.spool_reader import SpoolReader
from ...core.runs.registry import Registry
from ...core.runs.watch import Changed, Fine, Trouble, backend_of, look, watch
from ..background import begin
from ..words import trouble as words_of
from .run_lines import Lines
from .run_messages import Found, News, Opened, Points, Told, Troubled

if TYPE_CHECKING:
    from textual.message_pump import MessagePump

    from ...core.runs.record import RunRecord

_PACE_S = 0.25
_PIECE = 50_000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0


class Feed:
    """Feeds a screen with what there is to know of a run.

    Args:
        owner: gets the messages.
        record: the run.
    """

    def __init__(self, owner: MessagePump, record: RunRecord) -> None:
        self._owner, self._record = owner, record
        self._registry = Registry()
        self._stops: list[threading.Event] = []
        self._log = record.log
        self._opening: threading.Event | None = None
        self._bringing: threading.Event | None = None
        self._search: threading.Event | None = None

    def start(self) -> None:
        """Begin to read, measure and watch."""
        self.open(Lines())
        self._stops += [begin(self._owner, self._measure), begin(self._owner, self._watch)]
        self.tell(self._record)

    def stop(self) -> None:
        """Stop all of it; the run goes on."""
        for stop in (*self._stops, self._opening, self._bringing, self._search):
            if stop is not None:
                stop.set()

    def open(self, lines: Lines) -> None:
        """Index a log, or what a filter lets through of it, and hand it over."""
        for earlier in (self._opening, self._bringing):
            if earlier is not None:
                earlier.set()
        self._log = self._record.log if not lines.node else self._bring(lines.node)
        wanted, log, ended = lines.wanted, self._log, self._record.state.terminal

        def work(stop: threading.Event) -> None:
            reader = SpoolReader(log)
            reader.refresh()
            if not wanted:
                self._owner.post_message(Opened(reader))
                return
            chosen = FilteredReader(reader, wanted)
            while not chosen.catch_up(limit=_PIECE, ended=ended):
                if stop.is_set():
                    reader.close()
                    return
            self._owner.post_message(Opened(chosen))

        self._opening = begin(self._owner, work)

    def find(
        self,
        pattern: re.Pattern[bytes],
        start: int,
        *,
        backwards: bool,
        shown: SpoolReader | FilteredReader,
    ) -> None:
        """Look for a line among those that are shown; the search before is given up."""
        if self._search is not None:
            self._search.set()
        log = self._log

        def look(stop: threading.Event) -> None:
            if isinstance(shown, FilteredReader):
                number = shown.find(pattern, start, backwards=backwards, stopped=stop.is_set)
            else:
                with SpoolReader(log) as reader:
                    number = reader.find(pattern, start, backwards=backwards, stopped=stop.is_set)
            if not stop.is_set():
                self._owner.post_message(Found(number))

        self._search = begin(self._owner, look)

    def _bring(self, node: int) -> Path:
        """Have the log of a node copied here while it is shown, and return its place."""
        from ...core.cli.runs_logs import log_of_node

        handle, log = log_of_node(self._record, node)
        backend = backend_of(self._record)

        def work(stop: threading.Event) -> None:
            async def copy() -> None:
                task = asyncio.ensure_future(bring_home(handle, backend, log, trouble))
                while not task.done():
                    await asyncio.wait([task], timeout=_PACE_S)
                    if stop.is_set():
                        task.cancel()
                if not task.cancelled():
                    task.result()

            asyncio.run(copy())

        def trouble(text: str) -> None:
            self._owner.post_message(Troubled(text))

        self._bringing = begin(self._owner, work)
        return log

    def tell(self, record: RunRecord) -> None:
        """Read what is known of a run as it is now."""
        from ..facts import facts_of, outcome_of

        def work(_stop: threading.Event) -> None:
            self._owner.post_message(Told(outcome_of(record), facts_of(record)))

        self._stops.append(begin(self._owner, work))

    def _measure(self, stop: threading.Event) -> None:
        reader = PointReader(self._record.log)
        while not stop.is_set():
            for batch in reader.batches():
                self._owner.post_message(Points(batch))
            stop.wait(_PACE_S)

    def _watch(self, stop: threading.Event) -> None:
        """Watch until the run ends. A backend that refuses is asked again, longer after each time.

        An expired token, a login that has a question: what a person mends elsewhere meanwhile.
        """
        pause_s = _FIRST_PAUSE_S
        while not stop.is_set():
            record = self._registry.get(self._record.run_id)
            if record.state.terminal and _log_is_here(record):
                self._owner.post_message(News(record))
                self._owner.post_message(Troubled(""))
                return
            began = time.monotonic()
            try:
                asyncio.run(self._follow(record, stop))
                return
            except (TunedeckError, OSError) as error:
                if time.monotonic() - began > pause_s:
                    pause_s = _FIRST_PAUSE_S
                gone = record.state.terminal and not isinstance(
                    error, ReachError | AuthenticationError
                )
                again = "" if gone else f"Looking again in {pause_s:.0f} s."
                self._owner.post_message(Troubled(f"{words_of(error)} {again}"))
                if gone:  # what the service has forgotten, it does not remember later
                    return
            stop.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _follow(self, record: RunRecord, stop: threading.Event) -> None:
        backend = backend_of(record)
        record = await look(record, backend, self._registry)
        self._owner.post_message(News(record))
        self._owner.post_message(Troubled(""))
        offset = record.log.stat().st_size if record.log.exists() else 0
        async with aclosing(watch(record, backend, self._registry, offset=offset)) as events:
            async for event in events:
                if stop.is_set():
                    return
                if isinstance(event, Changed):
                    self._owner.post_message(News(event.record))
                elif isinstance(event, Trouble):
                    self._owner.post_message(Troubled(event.text))
                elif isinstance(event, Fine):
                    self._owner.post_message(Troubled(""))


def _log_is_here(record: RunRecord) -> bool:
    """Whether all of a log that is written elsewhere has been brought to this machine."""
    if record.backend_handle is None or not backend_of(record).capabilities.remote:
        return True
    return load_state(record.log).complete
