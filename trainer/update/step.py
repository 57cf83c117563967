"""One optimizer step: forward and backward over the micro-batches, clip, check, update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..data.batches import Batch
from ..parallel.context import ALONE, DistributedContext
from ..parallel.gradients import scale, total_norm
from .finite import UpdateGuard
from .loss import SupervisedLoss


class StepResult(NamedTuple):
    """What a step came to.

    Attributes:
        loss: mean over the step's supervised tokens, before the update, on the device: reading it
            waits for the step.
        grad_norm: of all trained parameters together, before clipping, on the device.
        tokens, supervised, rows: counts of the step, over all ranks.
        places, padding: what was computed, and how much of it held no token, over all ranks.
        flops: floating-point operations for what held tokens, over all ranks.
    """

    loss: Tensor
    grad_norm: Tensor
    tokens: int
    supervised: int
    rows: int
    places: int = 0
    padding: int = 0
    flops: int = 0


def train_step(
    loss_sum: SupervisedLoss,
    optimizer: Optimizer,
    micro_batches: Sequence[Batch],
    *,
    guard: UpdateGuard,
    max_grad_norm: float | None,
    stopping: Callable[[], bool],
    device: torch.device,
    context: DistributedContext = ALONE,
    synchronize: Callable[[bool], None] = lambda _: None,
    work: Callable[[Batch], int] = lambda _: 0,
) -> StepResult | None:
    """Take one step, or give it up if the run is asked to stop meanwhile.

    Each micro-batch's summed loss is divided by the supervised tokens of the whole step on all
    ranks, and gradients are summed, so that a token counts the same however the step is cut into
    micro-batches and dealt out to ranks.

    Args:
        loss_sum: the model's loss.
        optimizer: over the trained parameters.
        micro_batches: this rank's rows of the step, in as many micro-batches as on any other rank.
        guard: makes the update, unless loss or norm is not finite.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        stopping: asked before each micro-batch; parameters are untouched if it says yes. All ranks
            hear the same.
        device: where the model computes; its weights may lie elsewhere.
        context: the ranks that take the step together.
        synchronize: told before each micro-batch whether its gradients are to be summed over the
            ranks, which they are at the last.
        work: counts the floating-point operations of a batch.
    """
    tokens, supervised, rows, places, padding, flops = context.count(
        [
            sum(batch.tokens for batch in micro_batches),
            sum(batch.targets.numel() for batch in micro_batches),
            sum(batch.samples for batch in micro_batches),
            sum(batch.input_ids.numel() for batch in micro_batches),
            sum(batch.padding for batch in micro_batches),
            sum(work(batch) for batch in micro_batches),
        ]
    )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    # What a step left that memory ran out in.
    optimizer.zero_grad()
    total = torch.zeros((), device=device)
    for number, batch in enumerate(micro_batches, start=1):
        if stopping():
            optimizer.zero_grad()
            return None
        synchronize(number == len(micro_batches))
        loss = loss_sum(batch, device) / supervised
        loss.backward()
        total += loss.detach()
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = total_norm(gradients)
    total = context.sum_loss(total)
    if max_grad_norm is not None:
        scale(gradients, (max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
    norm = norm.to(device, non_blocking=True)
    guard.step(total, norm)
    optimizer.zero_grad()
    return StepResult(total, norm, tokens, supervised, rows, places, padding, flops)
