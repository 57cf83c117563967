"""The order in which the rows of a data set are trained on, and from where it is taken up again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


@dataclass(frozen=True, slots=True)
class DataOrder:
    """Which row is the n-th sample of a run: a function of the seed and n alone.

    Neither the number of ranks nor the micro-batch plays a part, so a run continues with the very
    next sample wherever and however it is resumed.

    Attributes:
        sizes: rows of each source; the rows of all sources are numbered one after the other.
        weights: share of each source in a blend; None takes every row of all once an epoch.
        seed: of the shuffling.
        shuffle: whether each epoch has an order of its own.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...] | None
    seed: int
    shuffle: bool

    @property
    def epoch_length(self) -> int:
        """Samples of an epoch: as many as there are rows."""
        return sum(self.sizes)

    @property
    def drawn(self) -> list[int]:
        """How many samples of an epoch are from each source."""
        if self.weights is None:
            return list(self.sizes)
        return _quotas(self.epoch_length, self.weights)

    def epoch(self, number: int) -> Tensor:
        """The rows of one epoch in order, [epoch_length] int64."""
        if self.weights is None:
            return self._permutation(number, 0, self.epoch_length)
        return self._blend(number)

    def _permutation(self, epoch: int, source: int, size: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(size)
        generator = np.random.default_rng((self.seed, epoch, source))
        return torch.from_numpy(generator.permutation(size))

    def _blend(self, epoch: int) -> Tensor:
        """Draw from each source by its weight, evenly spread; a source drawn out starts anew."""
        places, rows, offset = [], [], 0
        for source, (size, quota) in enumerate(zip(self.sizes, self.drawn, strict=True)):
            places.append((torch.arange(quota) + 0.5) / max(quota, 1))
            drawn = torch.arange(epoch * quota, (epoch + 1) * quota)
            passes = range(epoch * quota // size, ((epoch + 1) * quota - 1) // size + 1)
            orders = {number: self._permutation(number, source + 1, size) for number in passes}
            rows.append(
                torch.tensor([int(orders[n // size][n % size]) for n in drawn.tolist()]) + offset
            )
            offset += size
        return torch.cat(rows)[torch.cat(places).argsort(stable=True)]


def _quotas(total: int, weights: Sequence[float]) -> list[int]:
    """Split a total by weights, the rest going to the largest remainders."""
    shares = [total * weight / sum(weights) for weight in weights]
    quotas = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: quotas[i] - shares[i])
    for source in by_remainder[: total - sum(quotas)]:
        quotas[source] += 1
    return quotas


class StepSampler(Sampler[list[int]]):
    """Yields the row indices of each step, from a given sample to the last one.

    Args:
        order: the order of the samples.
        start: samples that were trained on before.
        stop: samples of the whole run; the last step may be a smaller one.
        batch: rows of one step.
    """

    def __init__(self, order: DataOrder, *, start: int, stop: int, batch: int) -> None:
        self._order, self._start, self._stop, self._batch = order, start, stop, batch

    def __len__(self) -> int:
        return math.ceil((self._stop - self._start) / self._batch)

    def __iter__(self) -> Iterator[list[int]]:
        length = self._order.epoch_length
        epoch, rows = -1, torch.empty(0, dtype=torch.int64)
        step: list[int] = []
        for sample in range(self._start, self._stop):
            if sample // length != epoch:
                epoch = sample // length
                rows = self._order.epoch(epoch)
            step.append(int(rows[sample % length]))
            if len(step) == self._batch:
                yield step
                step = []
        if step:
            yield step
