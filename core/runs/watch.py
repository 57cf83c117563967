"""Watching runs: the events of one until it ends, and the truth about many at this moment."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial

from ..backends.base import Backend, load_backend
from ..backends.ending import by_its_last_word
from ..backends.suspend import as_suspended
from ..backends.tail import ticking_tail
from ..charts.metrics import Point, parse_line
from ..errors import ReachError, TunedeckError
from ..logs.spool import bring_home
from ..states import RunState
from .diagnose import read_tail
from .fetch import bring_result
from .record import RunRecord
from .recover import recover
from .registry import Registry

_LOOK_LIMIT_S = 20.0
_AT_ONCE = 16
"""Runs of one service that are asked about at a time: so many connections, or fewer."""

_LISTED_LIMIT_S = 300.0
_DRAIN_S = 60.0
_LONGEST_PAUSE_S = 60.0
_SLOWING = 1.25
_CLOSING_PACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """A log line, as it came. `offset` is where the next one starts in the log on this machine."""

    line: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What a metric line says. The line itself came just before."""

    point: Point


@dataclass(frozen=True, slots=True)
class Changed:
    """The run's record after its state, word or reason changed. The last event is its end."""

    record: RunRecord


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is being tried again, for a person to know."""

    text: str


@dataclass(frozen=True, slots=True)
class Fine:
    """What was in trouble answers again."""


Event = Line | Measured | Changed | Trouble | Fine


def backend_of(record: RunRecord) -> Backend:
    """The backend of a run, made from the profile that it was launched with."""
    return load_backend(record.backend, dict(record.plan["profile_values"]))


async def look(record: RunRecord, backend: Backend, registry: Registry) -> RunRecord:
    """Ask the backend once how a run is, and save the answer."""
    if record.state.terminal:
        return record
    handle = record.backend_handle
    if handle is None:
        return await recover(record, backend, registry)
    status = await backend.status(handle)
    if status.state is RunState.LOST and _may_not_be_listed_yet(record, backend):
        return record
    if status.state is RunState.LOST:
        status = by_its_last_word(status, read_tail(record.log).encode().split(b"\n"))
    if status.state is RunState.CANCELLED:  # or put on hold, by a process that has noted that
        held = registry.get(record.run_id).backend_handle
        status = as_suspended(status, held or handle)
    known = (record.state, record.word, record.reason, record.started_at)
    if known == (status.state, status.word, status.reason, status.started_at):
        return record
    if status.state is RunState.SUCCEEDED:
        await bring_result(record, backend)  # before anyone hears of the end and asks for it
    return registry.update(record.run_id, status)


def _may_not_be_listed_yet(record: RunRecord, backend: Backend) -> bool:
    """Whether a service was given a run so lately that it may not know it everywhere."""
    unseen = record.state is RunState.SUBMITTING and backend.capabilities.remote
    return unseen and time.time() - record.created_at < _LISTED_LIMIT_S


async def watch(
    record: RunRecord, backend: Backend, registry: Registry, *, offset: int = 0
) -> AsyncGenerator[Event]:
    """All that happens to a run until it has ended and its last log line is told.

    Close it (`contextlib.aclosing`) if it is left before its end. Leaving it leaves the run alone.

    Args:
        record: the run; it may have ended long ago.
        backend: its backend.
        registry: kept up to date on the way.
        offset: the byte of the log on this machine to start from, 0 for all of it.

    Raises:
        TunedeckError: if the backend refuses. A lost connection is told as `Trouble`.
    """
    eye = _Eye(record, backend, registry)
    try:
        async with aclosing(ticking_tail(record.log, offset, eye.all_told)) as entries:
            async for entry in entries:
                while eye.news:
                    yield eye.news.popleft()
                if entry is None:
                    continue
                eye.hears()
                yield Line(entry.line, int(entry.cursor))
                if point := parse_line(entry.line):
                    yield Measured(point)
        while eye.news:  # of the moment since the last look at the log
            yield eye.news.popleft()
        yield Changed(eye.record)
    finally:
        await eye.close()


class _Eye:
    """Keeps an eye on one run beside the reading of its log: its state, and the copy of the log."""

    def __init__(self, record: RunRecord, backend: Backend, registry: Registry) -> None:
        self.record = record
        self.news: deque[Event] = deque()
        self._backend = backend
        self._registry = registry
        self._troubled: set[str] = set()
        self._submitted = asyncio.Event()
        self._heard = asyncio.Event()
        remote = backend.capabilities.remote
        self._copy = asyncio.create_task(self._bring_home() if remote else _nothing())
        self._states = asyncio.create_task(self._look_until_ended())

    async def all_told(self) -> bool:
        """Whether the run has ended and its log on this machine is whole.

        Raises:
            TunedeckError: if the backend refused to say more.
        """
        for task in (self._states, self._copy):
            if task.done():
                task.result()
        return self._states.done()

    async def close(self) -> None:
        """Stop looking."""
        tasks = (self._states, self._copy)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_until_ended(self) -> None:
        """Look at the backend's pace.

        Slower, where that is elsewhere, while nothing changes or it cannot be reached; at once as
        a log begins or ends.
        """
        pace_s = pause_s = self._backend.capabilities.poll_s
        while not self.record.state.terminal:
            before = self.record
            try:
                self.record = await look(before, self._backend, self._registry)
                self._fine("state")
                same = _shown(before) == _shown(self.record) and self._backend.capabilities.remote
                pause_s = min(pause_s * _SLOWING, _LONGEST_PAUSE_S) if same else pace_s
            except ReachError as error:
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                self._in_trouble("state", f"{error} Looking again in {pause_s:.0f} s.")
            if self.record.backend_handle is not None:
                self._submitted.set()
            if _shown(before) != _shown(self.record) and not self.record.state.terminal:
                self.news.append(Changed(self.record))
            if not self._copy.done():
                await self._pause(pause_s)
            elif not self.record.state.terminal:
                await asyncio.sleep(min(pause_s, _CLOSING_PACE_S))
        self._submitted.set()
        await asyncio.wait([self._copy], timeout=_DRAIN_S)

    def hears(self) -> None:
        """A line has come: a run that was waiting goes on."""
        self._fine("log")
        if self.record.state is not RunState.RUNNING:
            self._heard.set()

    async def _pause(self, seconds: float) -> None:
        """Until the time is up, the log has ended, or a run that waited has said something."""
        heard = asyncio.create_task(self._heard.wait())
        await asyncio.wait(
            [self._copy, heard], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        heard.cancel()
        if self._heard.is_set():
            self._heard.clear()
            await asyncio.sleep(_CLOSING_PACE_S)  # lines come in crowds; one look is enough

    async def _bring_home(self) -> None:
        await self._submitted.wait()
        handle = self.record.backend_handle
        if handle is not None:
            trouble = partial(self._in_trouble, "log")
            await bring_home(handle, self._backend, self.record.log, trouble)
            self._fine("log")

    def _in_trouble(self, what: str, text: str) -> None:
        self._troubled.add(what)
        self.news.append(Trouble(text))

    def _fine(self, what: str) -> None:
        if what in self._troubled:
            self._troubled.remove(what)
            if not self._troubled:
                self.news.append(Fine())


async def _nothing() -> None:
    """The copy of a log that is already here."""


def _shown(record: RunRecord) -> tuple[str, str, str]:
    return record.state, record.word, record.reason


async def wait_until_ended(
    record: RunRecord, registry: Registry, seconds: float | None
) -> RunRecord:
    """Look at a run until it has ended or the time is up; the record as it then is.

    Raises:
        TunedeckError: if the backend refuses. A lost connection is tried again.
    """
    backend = backend_of(record)
    try:
        async with asyncio.timeout(seconds):
            while not record.state.terminal:
                with suppress(ReachError):
                    record = await look(record, backend, registry)
                if not record.state.terminal:
                    await asyncio.sleep(backend.capabilities.poll_s)
    except TimeoutError:
        pass
    return record


@dataclass(frozen=True, slots=True)
class Refreshed:
    """Records as their backends see them now, and notes on those that could not be asked."""

    records: list[RunRecord]
    notes: list[str]


async def refresh(registry: Registry, records: Sequence[RunRecord]) -> Refreshed:
    """Ask the backends about every run that has not ended, side by side, and save the answers.

    A backend that cannot be asked changes nothing: its runs stay as they were last seen.
    """
    round_ = _Round(registry)
    seen = list(await asyncio.gather(*map(round_.ask, records)))
    return Refreshed(seen, round_.notes())


class _Round:
    """One look at many runs: those of one profile share a backend, and so its credential."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._backends: dict[str, Backend] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._troubles: dict[str, list[str]] = {}

    async def ask(self, record: RunRecord) -> RunRecord:
        """The run as its backend sees it now; as it was, where that cannot be asked."""
        if record.state.terminal:
            return record
        try:
            return await asyncio.wait_for(self._look(record), _LOOK_LIMIT_S)
        except TimeoutError:
            text = f"{record.backend} did not answer in {_LOOK_LIMIT_S:.0f} s."
        except TunedeckError as error:
            text = str(error)
        self._troubles.setdefault(text, []).append(record.run_id)
        return record

    async def _look(self, record: RunRecord) -> RunRecord:
        profile = repr((record.backend, record.plan["profile_values"]))
        if (backend := self._backends.get(profile)) is None:
            backend = self._backends[profile] = backend_of(record)
        if backend.capabilities.asks_together:
            return await look(record, backend, self._registry)
        async with self._turns.setdefault(record.backend, asyncio.Semaphore(_AT_ONCE)):
            return await look(record, backend, self._registry)

    def notes(self) -> list[str]:
        """What went wrong, each trouble once with the runs that have it."""
        return [
            f"{first} and {len(more)} more: {text}" if more else f"{first}: {text}"
            for text, (first, *more) in self._troubles.items()
        ]
