"""Validation: the mean loss over all supervised tokens of the validation rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn

from ..data.batches import Batch, Collate
from ..data.rows import TokenRows
from ..parallel.context import ALONE, DistributedContext
from ..parallel.fsdp import let_go
from ..update.loss import SupervisedLoss


class Validation(NamedTuple):
    """What a validation came to.

    Attributes:
        loss: mean over the supervised tokens.
        tokens: number of supervised tokens.
        sources: the mean loss on each source, as `loss/NAME`; empty where there is one source.
    """

    loss: float
    tokens: int
    sources: Mapping[str, float] = MappingProxyType({})


def validation_batches(rows: TokenRows, collate: Collate, batch: int) -> Iterator[Batch]:
    """All rows, those of like length together: the mean does not depend on the order."""
    order = sorted(range(len(rows)), key=rows.length)
    for at in range(0, len(order), batch):
        yield from collate(order[at : at + batch])


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loss_sum: SupervisedLoss,
    batches: Iterator[Batch],
    *,
    device: torch.device,
    stopping: Callable[[], bool],
    context: DistributedContext = ALONE,
) -> Validation | None:
    """The validation loss over all ranks' batches, weighted by tokens.

    Returns:
        None if the run was asked to stop meanwhile.
    """
    model.eval()
    total = torch.zeros((), device=device, dtype=torch.float64)
    tokens = 0
    try:
        for batch in batches:
            if stopping():
                return None
            total += loss_sum(batch, device)
            tokens += batch.targets.numel()
    finally:
        let_go(model)
        model.train()
    (tokens,) = context.count([tokens])
    return Validation(context.sum_loss(total).item() / tokens, tokens)
