"""Steps that were taken and whose numbers the host has not read yet."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from ..data.batches import Batch
from .step import StepResult


class Taken(NamedTuple):
    """A step that was taken, with what it takes to repeat it.

    Attributes:
        step: its number, from 1.
        samples: rows that the run was trained on before it.
        random: the random state before it.
        micro_batches: this rank's rows.
        result: its numbers, which may still be on the device.
        rows: the digest of this rank's rows, which adds up over the ranks.
    """

    step: int
    samples: int
    random: dict[str, Any]
    micro_batches: list[Batch]
    result: StepResult
    rows: tuple[int, int]


class Settled(NamedTuple):
    """A step whose numbers are known."""

    taken: Taken
    loss: float
    grad_norm: float

    @property
    def finite(self) -> bool:
        """Whether an update was made from it."""
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class PendingSteps:
    """Gathers steps, so that the host waits for a GPU once for many of them."""

    def __init__(self) -> None:
        self._steps: list[Taken] = []

    def __len__(self) -> int:
        return len(self._steps)

    def add(self, step: Taken) -> None:
        """Note a step."""
        self._steps.append(step)

    def settle(self) -> list[Settled]:
        """The numbers of all steps noted since the last call; waits until they are computed."""
        steps, self._steps = self._steps, []
        if not steps:
            return []
        numbers = torch.stack([torch.stack([s.result.loss, s.result.grad_norm]) for s in steps])
        return [Settled(step, *pair) for step, pair in zip(steps, numbers.tolist(), strict=True)]
