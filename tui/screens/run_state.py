"""Where a run stands, in two lines, and in another what keeps one from knowing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from textual.content import Content

from ...core.cli.live import span
from ...core.text import four_digits
from ..words import MARKS, cell, safe

if TYPE_CHECKING:
    from ...core.charts.curves import Curves
    from ...core.charts.progress import Pace
    from ...core.runs.record import RunRecord

_BAR = 20
_SHOWN = (("loss", "loss"), ("val_loss", "val"), ("tokens_per_s", "tokens/s"))


def state_lines(record: RunRecord, curves: Curves, pace: Pace, width: int) -> Iterator[Content]:
    """State with the backend's word and reason; below it how far it is, and its newest values."""
    mark, color = MARKS[record.state]
    word = f" ({safe(record.word)})" if record.word and record.word != record.state else ""
    reason = f": {safe(record.reason)}" if record.reason else ""
    where = f"  on {safe(record.profile)}"
    yield Content.assemble(
        (f"{mark} {record.state}", f"bold {color}"), cell(f"{word}{reason}{where}", width - 12)
    )
    latest = curves.latest
    parts: list[str | tuple[str, str]] = []
    share = pace.share
    if share is not None:
        filled = round(share * _BAR)
        parts += [("━" * filled, "$accent"), ("─" * (_BAR - filled) + " ", "$text-muted")]
    if "step" in latest:
        total = f"/{pace.total}" if pace.total else ""
        parts.append(f"step {latest['step']}{total}  ")
    if (left := pace.seconds_left) is not None and not record.state.terminal:
        parts.append((f"{span(left)} left  ", "bold"))
    if record.started_at is not None:
        until = record.ended_at or time.time()
        parts.append((f"{span(until - record.started_at)}  ", "$text-muted"))
    parts += [f"{name} {four_digits(latest[key])}  " for key, name in _SHOWN if key in latest]
    yield Content.assemble(*parts).truncate(max(width, 1), ellipsis=True)


def trouble_line(record: RunRecord, trouble: str) -> Content:
    """What is being tried again, and what it is that one does not see meanwhile."""
    ended = record.state.terminal
    what = "Not all of its log is here" if ended else "Not up to date"
    hint = "" if ended else " ctrl+r asks now."
    words = f"! {what}: {' '.join(trouble.split())}{hint}"
    return Content.styled(safe(words), "$warning")
