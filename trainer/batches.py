"""From prepared rows to the micro-batches of each step, in an order that can be resumed."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ..core.schema.data import DataloaderConfig
from .parallel.share import WHOLE, Share
from .rows import TokenRows


class Batch(NamedTuple):
    """Rows of one forward pass, padded at the right.

    Attributes:
        input_ids: [rows, length] int64.
        positions: [supervised] int64, the places in the flattened `input_ids` whose next token is
            trained.
        targets: [supervised] int64, these next tokens.
        tokens: number of tokens in the rows, padding left out.
        rows: index of each row in the data set.
    """

    input_ids: Tensor
    positions: Tensor
    targets: Tensor
    tokens: int
    rows: tuple[int, ...]

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        if device.type == "cpu":
            return self
        return Batch(
            self.input_ids.to(device, non_blocking=True),
            self.positions.to(device, non_blocking=True),
            self.targets.to(device, non_blocking=True),
            self.tokens,
            self.rows,
        )


class Collate:
    """Makes micro-batches of a step's rows.

    Args:
        rows: the prepared rows.
        micro_batch: rows of one forward pass.
        pad: the token that fills short rows; its value has no effect on the loss.
        share: which of the micro-batches are this process's.
    """

    def __init__(self, rows: TokenRows, micro_batch: int, pad: int, share: Share = WHOLE) -> None:
        self._rows, self._micro_batch, self._pad = rows, micro_batch, pad
        self._share = share

    def __call__(self, indices: Sequence[int]) -> list[Batch]:
        """This process's micro-batches of one step, rows of like length together to pad less."""
        size, rows = self._micro_batch, sorted(indices, key=self._rows.length)
        cut = [rows[at : at + size] for at in range(0, len(rows), size)]
        return [
            self._nothing() if part is None else self._collate(part)
            for part in self._share.take(cut)
        ]

    def _nothing(self) -> Batch:
        """A forward pass for a rank that has no rows left: one token, nothing to predict."""
        nowhere = torch.empty(0, dtype=torch.int64)
        return Batch(torch.tensor([[self._pad]]), nowhere, nowhere, tokens=0, rows=())

    def _collate(self, indices: Sequence[int]) -> Batch:
        rows = [self._rows[index] for index in indices]
        predicting = [row.trained[1:].nonzero()[0] for row in rows]
        # What follows the last trained token predicts nothing and is seen by nothing before it.
        width = max(int(at[-1]) + 1 for at in predicting)
        input_ids = np.full((len(rows), width), self._pad, dtype=np.int64)
        for line, row in zip(input_ids, rows, strict=True):
            line[: len(row.input_ids)] = row.input_ids[:width]
        positions = [at + line * width for line, at in enumerate(predicting)]
        targets = [row.input_ids[at + 1] for row, at in zip(rows, predicting, strict=True)]
        return Batch(
            torch.from_numpy(input_ids),
            torch.from_numpy(np.concatenate(positions)),
            torch.from_numpy(np.concatenate(targets).astype(np.int64)),
            tokens=sum(len(row.input_ids) for row in rows),
            rows=tuple(indices),
        )


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

    def epoch(self, number: int) -> Tensor:
        """The rows of one epoch in order, [epoch_length] int64."""
        if self.weights is None:
            return self._permutation(number, 0, self.epoch_length)
        return self._blend(number, self.weights)

    def _permutation(self, epoch: int, source: int, size: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(size)
        generator = np.random.default_rng((self.seed, epoch, source))
        return torch.from_numpy(generator.permutation(size))

    def _blend(self, epoch: int, weights: tuple[float, ...]) -> Tensor:
        """Draw from each source by its weight, evenly spread; a source drawn out starts anew."""
        quotas = _quotas(self.epoch_length, weights)
        places, rows, offset = [], [], 0
        for source, (size, quota) in enumerate(zip(self.sizes, quotas, strict=True)):
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


def build_loader(
    sampler: Sampler[list[int]], collate: Collate, config: DataloaderConfig, *, pin: bool
) -> DataLoader[Any]:
    """A loader that yields the list of micro-batches of each step.

    Args:
        sampler: the rows of each step.
        collate: makes micro-batches of them.
        config: processes that collate ahead.
        pin: put tensors where a GPU fetches them from without waiting.
    """
    return DataLoader(
        _Indices(),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=config.num_workers,
        prefetch_factor=config.prefetch_factor if config.num_workers else None,
        pin_memory=pin,
        worker_init_fn=_ignore_interrupts,
        # The loader draws a seed for its workers: not from the numbers that dropout draws from.
        generator=torch.Generator(),
    )


def _ignore_interrupts(_worker: int) -> None:
    """A Ctrl-C reaches the whole process group; the training process decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Indices(torch.utils.data.Dataset[int]):
    """Hands the sampler's indices on to the collation, which reads the rows itself."""

    def __getitem__(self, index: int) -> int:
        return index
