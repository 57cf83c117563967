"""Steps that were taken and whose numbers the host has not read yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def settle(steps: Sequence[Taken]) -> list[Settled]:
    """The numbers of steps, at least one; waits once for a GPU until all of them are computed."""
    numbers = torch.stack([torch.stack([s.result.loss, s.result.grad_norm]) for s in steps])
    return [Settled(step, *pair) for step, pair in zip(steps, numbers.tolist(), strict=True)]
