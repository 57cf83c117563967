"""How far a run is, and how long it still takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..keys import table_in

_TOTAL = re.compile(rb"tunedeck: (?:.* )?total_steps=(\d+)\b")
_WINDOW_S = 30.0


def total_steps(line: bytes) -> int | None:
    """How many steps there will be, from the trainer's line that says so; None for any other."""
    found = _TOTAL.search(line) if b"total_steps=" in line else None
    return int(found[1]) if found else None


def planned_steps(plan: Mapping[str, Any]) -> int | None:
    """How many steps a recorded plan asks for; None where the data decides."""
    steps = table_in(plan["config_values"], "step_scheduler").get("max_steps")
    return int(steps) if steps else None


@dataclass
class Pace:
    """The speed of a run as it is watched, over the last half minute.

    Attributes:
        total: how many steps there will be, once that is known.
    """

    total: int | None = None

    def __post_init__(self) -> None:
        self._seen: list[tuple[float, int]] = []

    def saw(self, moment: float, step: int) -> None:
        """The run was at a step at a moment, in seconds of any clock that runs evenly."""
        if self._seen and step < self._seen[-1][1]:
            self._seen.clear()  # it was resumed from further back
        self._seen.append((moment, step))
        while len(self._seen) > 2 and moment - self._seen[1][0] > _WINDOW_S:
            self._seen.pop(0)

    @property
    def share(self) -> float | None:
        """How much is done, from 0 to 1; None where the end is not known."""
        if not self.total or not self._seen:
            return None
        return min(self._seen[-1][1] / self.total, 1.0)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step at this speed; None where that cannot be told."""
        if not self.total or len(self._seen) < 2:
            return None
        (start, first), (now, step) = self._seen[0], self._seen[-1]
        if step <= first:
            return None
        return (now - start) / (step - first) * max(0, self.total - step)
