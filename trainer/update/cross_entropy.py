"""Cross entropy that keeps one tensor of the logits' size: the gradient is made in the forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_PASSED_THROUGH = {"UnsafeViewBackward0", "ViewBackward0", "SqueezeBackward1"}
_PRODUCTS = {"MmBackward0", "AddmmBackward0", "ToCopyBackward0", "_JoinedBackward"}
"""What does not keep its result, which may so be written over."""


class _CrossEntropy(torch.autograd.Function):
    """The loss of each row of logits, in float32.

    Logits, log-probabilities and their gradient are three tensors with `F.cross_entropy`. Here
    probabilities take the place of the logits, and the gradient that of the probabilities.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, overwrite: bool) -> Tensor:
        if not targets.numel():
            ctx.save_for_backward(torch.empty_like(logits))
            return logits.new_empty(0)
        rows = targets[:, None]
        highest = logits.amax(1)
        of_target = logits.gather(1, rows).squeeze(1)
        into = logits if overwrite else torch.empty_like(logits)
        shares = torch._softmax(logits, 1, False, out=into)
        # The highest share is 1 over the sum of all exponentials: no pass more for the logarithm.
        losses = (highest - of_target).sub_(shares.amax(1).log_())
        if ctx.needs_input_grad[0]:
            shares.scatter_add_(1, rows, shares.new_full((1, 1), -1.0).expand_as(rows))
            ctx.save_for_backward(shares)
        return losses

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (shares,) = ctx.saved_tensors
        # Saved tensors are checked for having been written to: a second backward pass raises.
        return shares.mul_(gradient[:, None]), None, None


_cross_entropy: Any = _CrossEntropy.apply


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The cross entropy of each row of logits; one backward pass can be made through it.

    Args:
        logits: [rows, vocabulary] float32. Written over where nothing else can need them.
        targets: [rows] int64.

    Returns:
        [rows] float32.
    """
    losses: Tensor = _cross_entropy(logits, targets, _may_be_overwritten(logits))
    return losses


def _may_be_overwritten(logits: Tensor) -> bool:
    """Whether the logits are a product's result, seen at most through other shapes."""
    step = logits.grad_fn
    while step is not None and step.name() in _PASSED_THROUGH:
        step = step.next_functions[0][0]
    return step is not None and step.name() in _PRODUCTS
