"""From prepared rows to the micro-batches of each step."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ...core.schema.data import DataloaderConfig
from ..parallel.share import WHOLE, Share
from .packing import Packs
from .rows import RowsByNumber, TokenRow


class Batch(NamedTuple):
    """Rows of one forward pass: one a line and padded at the right, or all in one line.

    In one line each row is a document of its own. Positions begin anew with it, and the boundaries
    say what attends to what.

    Attributes:
        input_ids: [rows, length] int64, or [1, tokens].
        positions: [supervised] int64, the places in the flattened `input_ids` whose next token is
            trained.
        targets: [supervised] int64, these next tokens.
        tokens: number of tokens in the rows, padding left out.
        rows: index of each row in the data set.
        samples: how far the batch advances the run in the data order: rows, or packs of rows.
        padding: number of places of `input_ids` that hold no token.
        position_ids: [1, tokens] int64 for rows in one line, else None.
        cu_seqlens: [documents + 1] int32, where each row in one line begins and the last one ends,
            what fills the line up being one as well; else None.
        longest: length of the longest row, or of what fills the line up.
        sources: [supervised] int64, which source each target is from; None if there is but one.
        lengths: how many tokens of each row are computed.
    """

    input_ids: Tensor
    positions: Tensor
    targets: Tensor
    tokens: int
    rows: tuple[int, ...]
    samples: int = 0
    padding: int = 0
    position_ids: Tensor | None = None
    cu_seqlens: Tensor | None = None
    longest: int = 0
    sources: Tensor | None = None
    lengths: tuple[int, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            name: sent(value, device)
            for name, value in self._asdict().items()
            if isinstance(value, Tensor)
        }
        return self._replace(**moved)

    def pin_memory(self) -> Batch:
        """The batch where a GPU fetches it from without waiting; torch's loader calls it so."""
        pinned: dict[str, Any] = {
            name: value.pin_memory()
            for name, value in self._asdict().items()
            if isinstance(value, Tensor)
        }
        return self._replace(**pinned)


class Layout(NamedTuple):
    """How rows become the batch of a forward pass.

    Attributes:
        pad: the token that fills short rows; its value has no effect on the loss.
        in_line: rows lie one after the other in one line instead of one a line.
        multiple: a line is filled up to a multiple of so many tokens, so that few shapes are met:
            kernels are set up anew for each.
        sources: of the data set; with several, batches say which target is from which.
    """

    pad: int
    in_line: bool = False
    sources: int = 1
    multiple: int = 1

    def batch(self, rows: Sequence[TokenRow], numbers: Sequence[int], samples: int) -> Batch:
        """The batch of some rows.

        Args:
            rows: at least one token of each is trained.
            numbers: index of each row in the data set.
            samples: how far they advance the run in the data order.
        """
        predicting = [row.trained[1:].nonzero()[0] for row in rows]
        targets = [row.input_ids[at + 1] for row, at in zip(rows, predicting, strict=True)]
        # What follows the last trained token predicts nothing and is seen by nothing before it.
        widths = [int(at[-1]) + 1 for at in predicting]
        width = longest = max(widths)
        bounds = position_ids = None
        if self.in_line:
            starts = np.cumsum([0, *widths])
            # What fills the line up is a document of its own.
            filling = -int(starts[-1]) % self.multiple
            documents = [*widths, filling] if filling else widths
            # Kernels compute nothing beyond what they are told is the longest.
            longest = max(documents)
            cut = [row.input_ids[:w] for row, w in zip(rows, widths, strict=True)]
            input_ids = np.concatenate([*cut, np.full(filling, self.pad)])[None]
            bounds = torch.tensor([0, *np.cumsum(documents)], dtype=torch.int32)
            position_ids = _long(np.concatenate([np.arange(w) for w in documents])[None])
        else:
            starts = np.arange(len(rows) + 1) * width
            input_ids = np.full((len(rows), width), self.pad)
            for line, row, w in zip(input_ids, rows, widths, strict=True):
                line[:w] = row.input_ids[:w]
        positions = [at + start for at, start in zip(predicting, starts[:-1], strict=True)]
        sources = np.repeat([row.source for row in rows], [len(at) for at in predicting])
        return Batch(
            _long(input_ids),
            _long(np.concatenate(positions)),
            _long(np.concatenate(targets)),
            tokens=sum(len(row.input_ids) for row in rows),
            rows=tuple(numbers),
            samples=samples,
            padding=input_ids.size - sum(widths),
            position_ids=position_ids,
            cu_seqlens=bounds,
            longest=longest,
            sources=_long(sources) if self.sources > 1 else None,
            lengths=tuple(widths),
        )

    def nothing(self) -> Batch:
        """A forward pass for a rank that has no rows left: one token, nothing to predict."""
        nowhere = torch.empty(0, dtype=torch.int64)
        return Batch(
            torch.tensor([[self.pad]]),
            nowhere,
            nowhere,
            tokens=0,
            rows=(),
            padding=1,
            position_ids=torch.zeros(1, 1, dtype=torch.int64) if self.in_line else None,
            cu_seqlens=torch.tensor([0, 1], dtype=torch.int32) if self.in_line else None,
            longest=1,
            sources=nowhere if self.sources > 1 else None,
        )


class Collate:
    """Makes micro-batches of a step's samples, which are rows, or packs of rows.

    Args:
        rows: the prepared rows.
        micro_batch: samples of one forward pass.
        layout: how rows become a batch.
        packs: the rows of each sample; None if each row is one.
        share: which of the micro-batches are this process's.
    """

    def __init__(
        self,
        rows: RowsByNumber,
        micro_batch: int,
        layout: Layout,
        *,
        packs: Packs | Sequence[Sequence[int]] | None = None,
        share: Share = WHOLE,
    ) -> None:
        self._rows, self._micro_batch, self._layout = rows, micro_batch, layout
        self._packs, self._share = packs, share

    def __call__(self, indices: Sequence[int]) -> list[Batch]:
        """This process's micro-batches of one step."""
        return [
            self._layout.nothing() if part is None else self._collate(part)
            for part in self._share.take(self._cut(indices))
        ]

    def _cut(self, indices: Sequence[int]) -> list[Sequence[int]]:
        """A step's samples by micro-batch."""
        size = self._micro_batch
        if self._packs is not None:
            return [indices[at : at + size] for at in range(0, len(indices), size)]
        by_length = sorted(indices, key=self._rows.length)
        if not self._layout.in_line:
            # Rows of like length together, to pad less.
            return [by_length[at : at + size] for at in range(0, len(indices), size)]
        # Dealt out forwards and backwards in turn, so that no forward pass holds all long rows.
        dealt: list[list[int]] = [[] for _ in range(math.ceil(len(indices) / size))]
        for place, index in enumerate(by_length):
            turn, at = divmod(place, len(dealt))
            dealt[-1 - at if turn % 2 else at].append(index)
        return list(dealt)

    def _collate(self, samples: Sequence[int]) -> Batch:
        packs = self._packs
        numbers = samples if packs is None else [row for one in samples for row in packs[one]]
        return self._layout.batch([self._rows[n] for n in numbers], numbers, len(samples))


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host on a device; a GPU fetches them without being waited for."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def _long(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64, copy=False))


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
