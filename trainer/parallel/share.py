"""Dealing the micro-batches of a step out to the data parallel ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")


class Share(NamedTuple):
    """Which part of each step a process trains on: every `of`-th micro-batch from `rank` on."""

    rank: int
    of: int

    def take(self, items: Sequence[Item]) -> list[Item | None]:
        """This process's items, in order.

        Neighbours are dealt to different ranks, so that micro-batches of like size meet. All ranks
        get the same number, as each forward pass is one of all ranks: None stands where a rank has
        nothing left to do.
        """
        length = math.ceil(len(items) / self.of)
        mine = list(items[self.rank :: self.of])
        return [*mine, *[None] * (length - len(mine))]


WHOLE = Share(0, 1)
"""All of it: a single process."""
