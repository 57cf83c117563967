"""One optimizer step: forward and backward over the micro-batches, clip, check, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.optim import Optimizer

from .batches import Batch
from .loss import SupervisedLoss


class StepResult(NamedTuple):
    """What a step came to.

    Attributes:
        loss: mean over the step's supervised tokens, before the update.
        grad_norm: of all trained parameters together, before clipping.
        tokens, supervised: counts of the step.
    """

    loss: float
    grad_norm: float
    tokens: int
    supervised: int


class NonFiniteError(Exception):
    """The loss or the gradient norm is not a finite number; no update was made."""

    def __init__(self, loss: float, grad_norm: float) -> None:
        super().__init__(f"loss {loss:g}, gradient norm {grad_norm:g}")
        self.loss, self.grad_norm = loss, grad_norm


def train_step(
    loss_sum: SupervisedLoss,
    optimizer: Optimizer,
    micro_batches: Sequence[Batch],
    *,
    max_grad_norm: float | None,
    stopping: Callable[[], bool],
) -> StepResult | None:
    """Take one step, or give it up if the run is asked to stop meanwhile.

    Each micro-batch's summed loss is divided by the supervised tokens of the whole step, so that
    a token counts the same however the step is cut into micro-batches.

    Args:
        loss_sum: the model's loss.
        optimizer: over the trained parameters.
        micro_batches: the rows of the step.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        stopping: asked before each micro-batch; parameters are untouched if it says yes.

    Raises:
        NonFiniteError: the loss or the norm is not finite; parameters and optimizer are untouched.
    """
    supervised = sum(batch.targets.numel() for batch in micro_batches)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    total = torch.zeros((), device=parameters[0].device)
    for batch in micro_batches:
        if stopping():
            optimizer.zero_grad()
            return None
        loss = loss_sum(batch.to(total.device)) / supervised
        loss.backward()
        total += loss.detach()
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    loss_value, norm_value = torch.stack([total, norm.float()]).tolist()
    if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
        optimizer.zero_grad()
        raise NonFiniteError(loss_value, norm_value)
    if max_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_grad_norm, norm)
    optimizer.step()
    optimizer.zero_grad()
    return StepResult(
        loss_value, norm_value, sum(batch.tokens for batch in micro_batches), supervised
    )
