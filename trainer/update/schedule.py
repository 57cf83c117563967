"""The learning rate of each step: a pure function, so that a resumed run needs no state for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...core.schema.optimization import LrScheduleConfig

_WARMUP_START = 0.1
_DECAY_END = 0.01


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate over a run, as NeMo AutoModel's `OptimizerParamScheduler` sets it.

    Attributes:
        peak: the highest rate.
        phases: schedules in ascending order, each with the step it begins at; the first begins
            at 0. Each runs on its own clock, up to where the next one begins.
        total_steps: the step at which the run ends.
    """

    peak: float
    phases: Sequence[tuple[int, LrScheduleConfig]]
    total_steps: int

    def __call__(self, step: int) -> float:
        """The rate of one step, which `step` optimizer steps were taken before."""
        index = max(i for i, (start, _) in enumerate(self.phases) if start <= step)
        start, schedule = self.phases[index]
        last = index + 1 == len(self.phases)
        end = self.total_steps if last else self.phases[index + 1][0]
        return _within(schedule, step - start, max(end - start, 1), self.peak)


def _within(schedule: LrScheduleConfig, step: int, length: int, peak: float) -> float:
    lowest = peak * _DECAY_END if schedule.min_lr is None else schedule.min_lr
    warmup = schedule.lr_warmup_steps
    warmup = min(1000, length // 10) if warmup is None else warmup
    if step < warmup:
        first = peak * _WARMUP_START
        return first + (peak - first) * step / warmup
    if schedule.lr_decay_style == "constant":
        return peak
    if schedule.lr_decay_style == "wsd":
        decay = schedule.lr_decay_steps or max(length // 5, 1)
        done = (step - max(length - decay, warmup)) / decay
    else:
        done = (step - warmup) / max((schedule.lr_decay_steps or length) - warmup, 1)
    done = min(max(done, 0.0), 1.0)
    cosine = schedule.lr_decay_style == "cosine"
    left = (math.cos(math.pi * done) + 1) / 2 if cosine else 1 - done
    return lowest + left * (peak - lowest)
