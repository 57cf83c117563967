"""The curves of a run, read from its log: one logfmt line a log step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

Point = dict[str, int | float]
"""`step` and what was measured at it."""

# What stands before the line is a launcher's prefix (`[rank0]: `, `0: `) or the rest of a progress
# bar that a carriage return ended.
_START = re.compile(rb"(?:^|[\s\]:|])(?=step=\d)")
_KEY = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
_LONGEST_LINE = 4096

_BARS = "▁▂▃▄▅▆▇█"


def parse_line(line: bytes) -> Point | None:
    """The point of a metric line, None for any other line. A broken value is left out."""
    if b"step=" not in line or len(line) > _LONGEST_LINE:
        return None
    start = _START.search(line)
    if start is None:
        return None
    point: Point = {}
    for word in line[start.end() :].decode(errors="replace").split():
        key, equals, text = word.partition("=")
        if not equals or not _KEY.fullmatch(key):
            return None
        value = _number(text)
        if value is not None:
            point[key] = value
    return point if len(point) > 1 and isinstance(point.get("step"), int) else None


def _number(text: str) -> int | float | None:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        return None


class Metrics:
    """The points of a run, fed with its log lines in order.

    Lines of the same step (training and validation) make one point. A run that was resumed repeats
    steps, and what it says later counts.
    """

    def __init__(self) -> None:
        self._points: dict[int, Point] = {}
        self.latest: Point = {}
        """The newest value of every key; empty before the first point."""

    def feed(self, line: bytes) -> Point | None:
        """Take in one log line; its point, if it is a metric line."""
        point = parse_line(line)
        if point is not None:
            self._points.setdefault(int(point["step"]), {}).update(point)
            self.latest.update(point)
        return point

    @property
    def points(self) -> list[Point]:
        """All points, by step."""
        return [self._points[step] for step in sorted(self._points)]

    def series(self, key: str) -> list[float]:
        """The values of one key, by step, where it was measured."""
        return [float(point[key]) for point in self.points if key in point]


def read_metrics(log: Path) -> Metrics:
    """The metrics in a log as far as it goes. A log that is not there has none."""
    metrics = Metrics()
    if log.exists():
        with log.open("rb") as lines:
            for line in lines:
                metrics.feed(line.rstrip(b"\r\n"))
    return metrics


def to_json(points: Iterable[Point]) -> list[dict[str, int | float | None]]:
    """Points for a JSON document, which knows neither NaN nor infinity: those become null."""
    return [
        {key: value if math.isfinite(value) else None for key, value in point.items()}
        for point in points
    ]


def sparkline(values: Sequence[float], width: int) -> str:
    """The course of a curve in one line of at most `width` characters; `×` is a non-finite value.

    Where several values share a character, the one farthest from the median is shown, so that a
    spike survives.
    """
    if not values or width < 1:
        return ""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "×" * min(width, len(values))
    low, high, middle = min(finite), max(finite), median(finite)
    span = high / 2 - low / 2 or 1.0  # halves, since the whole of two extremes is no number
    columns = min(width, len(values))
    text = ""
    for column in range(columns):
        start = column * len(values) // columns
        bucket = values[start : (column + 1) * len(values) // columns]
        if not all(math.isfinite(value) for value in bucket):
            text += "×"
            continue
        value = max(bucket, key=lambda v: abs(v - middle))
        text += _BARS[min(int((value / 2 - low / 2) / span * len(_BARS)), len(_BARS) - 1)]
    return text
