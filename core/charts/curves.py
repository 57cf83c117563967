"""Curves that grow: what a log measures, kept so that any number of points is quick to draw."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .metrics import Point, parse_line
from .progress import total_steps

_CHUNK = 1 << 20
_BLOCK = 64
_NO_CURVES = frozenset({"step", "epoch"})


class Curve:
    """One measured value over the steps.

    A run that was resumed repeats steps; what it says later takes the place of what it said before.
    The lowest and highest of every 64 values are known beforehand, so that a long curve is reduced
    as quickly as a short one.
    """

    def __init__(self) -> None:
        self.steps = array("q")
        self.values = array("d")
        self.broken = array("q")
        """Steps at which the value was not finite."""
        self._lowest = array("q")
        self._highest = array("q")

    def add(self, step: int, value: float) -> None:
        """Take in a value."""
        if self.steps and step <= self.steps[-1]:
            cut = bisect_left(self.steps, step)
            del self.steps[cut:], self.values[cut:]
            del self._lowest[cut // _BLOCK :], self._highest[cut // _BLOCK :]
        if self.broken and step <= self.broken[-1]:
            del self.broken[bisect_left(self.broken, step) :]
        if not math.isfinite(value):
            self.broken.append(step)
            return
        self.steps.append(step)
        self.values.append(value)
        if len(self.values) % _BLOCK == 0:
            block = range(len(self.values) - _BLOCK, len(self.values))
            self._lowest.append(min(block, key=self.values.__getitem__))
            self._highest.append(max(block, key=self.values.__getitem__))

    def reduced(self, buckets: int) -> tuple[list[int], list[float]]:
        """Steps and values: the lowest and the highest of each bucket, so that spikes stay.

        The first and the last are among them, so that a curve begins and ends where the run does.

        Args:
            buckets: at least 1; about as many as there are columns to draw on.
        """
        count = len(self.values)
        if count <= 2 * buckets:
            return list(self.steps), list(self.values)
        blocks = len(self._lowest)
        unit = _BLOCK if blocks >= buckets else 1
        pieces = blocks if unit > 1 else count
        kept: list[int] = []
        for bucket in range(buckets):
            start, end = bucket * pieces // buckets, (bucket + 1) * pieces // buckets
            if unit > 1:
                candidates = [*self._lowest[start:end], *self._highest[start:end]]
            else:
                candidates = list(range(start, end))
            if bucket == buckets - 1:  # the values after the last whole block
                candidates += range(pieces * unit, count)
            ends = {min(candidates, key=self.values.__getitem__)}
            ends.add(max(candidates, key=self.values.__getitem__))
            if bucket == 0:
                ends.add(0)
            if bucket == buckets - 1:
                ends.add(count - 1)
            kept += sorted(ends)
        return [self.steps[index] for index in kept], [self.values[index] for index in kept]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some more of what a log measures.

    Attributes:
        points: in the order of the log.
        restarted: whether the log was replaced, and these are the first points of the new one.
        total_steps: how many steps there will be, where the log has just said so.
    """

    points: list[Point]
    restarted: bool = False
    total_steps: int | None = None


class PointReader:
    """Reads the points of a log as it grows.

    Args:
        log: the log; it need not be there yet.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0
        self._rest = b""

    def batches(self) -> Iterator[Batch]:
        """What was written since, a MiB of log at a time; nothing where nothing was measured."""
        try:
            with self._log.open("rb") as file:
                restarted = file.seek(0, 2) < self._offset
                if restarted:
                    self._offset, self._rest = 0, b""
                    yield Batch([], restarted=True)
                file.seek(self._offset)
                while data := file.read(_CHUNK):
                    self._offset += len(data)
                    *lines, rest = (self._rest + data).split(b"\n")
                    self._rest = rest[-_CHUNK:]
                    points = [point for line in lines if (point := parse_line(line))]
                    totals = [total for line in lines if (total := total_steps(line))]
                    if points or totals:
                        yield Batch(points, total_steps=totals[-1] if totals else None)
        except FileNotFoundError:
            return


class Curves:
    """All curves of a run."""

    def __init__(self) -> None:
        self.by_key: dict[str, Curve] = {}
        self.latest: Point = {}
        """The newest value of every key; empty before the first point."""
        self.total_steps: int | None = None

    def add(self, batch: Batch) -> None:
        """Take in what was measured."""
        if batch.restarted:
            self.by_key, self.latest = {}, {}
        self.total_steps = batch.total_steps or self.total_steps
        for point in batch.points:
            self.latest.update(point)
            for key, value in point.items():
                if key not in _NO_CURVES:
                    self.by_key.setdefault(key, Curve()).add(int(point["step"]), float(value))

    def values(self, key: str) -> list[float]:
        """The finite values of one key, by step; empty where it was never measured."""
        curve = self.by_key.get(key)
        return list(curve.values) if curve else []
