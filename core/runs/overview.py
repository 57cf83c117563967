"""All runs at a glance: what the registry knows, how their losses go, and what backends say now."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from ..charts.curves import Curves, PointReader
from ..charts.metrics import Point, sparkline
from .record import RunRecord
from .registry import Registry
from .watch import backend_of, refresh

_CURVE_WIDTH = 16
_WITH_CURVES = 40
"""Runs whose logs are read; those further down are listed without a curve."""


@dataclass(frozen=True, slots=True)
class Glance:
    """One run in a list: its record, its loss as a line of bars, and its newest values."""

    record: RunRecord
    curve: str = ""
    latest: Point | None = None


class Overview:
    """Looks at the runs again and again, each backend no oftener than it likes.

    Args:
        registry: the runs; what backends say is saved in it.
        limit: at most so many runs, the newest.

    Attributes:
        has_older: whether there were more runs than that when they were last listed.
    """

    def __init__(self, registry: Registry, *, limit: int = 200) -> None:
        self._registry = registry
        self._limit = limit
        self.has_older = False
        self._curves: dict[str, tuple[PointReader, Curves]] = {}
        self._asked: dict[str, float] = {}

    def known(self) -> list[Glance]:
        """The runs, the newest first, as far as this machine knows. Uses no network."""
        records = self._registry.list(limit=self._limit + 1)
        self.has_older = len(records) > self._limit
        records = records[: self._limit]
        near = [self._glance(record) for record in records[:_WITH_CURVES]]
        return near + [Glance(record) for record in records[_WITH_CURVES:]]

    def ask(self) -> list[str]:
        """Ask the backends about the runs that go on, where it is time; notes on any trouble."""
        now = time.monotonic()
        due = [
            record
            for record in self._registry.list(limit=self._limit)
            if not record.state.terminal and self._is_due(record, now)
        ]
        for record in due:
            self._asked[record.run_id] = now
        return asyncio.run(refresh(self._registry, due)).notes if due else []

    def _is_due(self, record: RunRecord, now: float) -> bool:
        last = self._asked.get(record.run_id)
        return last is None or now - last >= backend_of(record).capabilities.poll_s

    def _glance(self, record: RunRecord) -> Glance:
        known = record.run_id in self._curves
        if not known:
            self._curves[record.run_id] = PointReader(record.log), Curves()
        reader, curves = self._curves[record.run_id]
        if not (known and record.state.terminal):
            for batch in reader.batches():
                curves.add(batch)
        curve = sparkline(curves.values("loss"), _CURVE_WIDTH)
        return Glance(record, curve, dict(curves.latest))
