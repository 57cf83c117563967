"""RMSNorm with a backward pass of its own: fewer passes over what it keeps less of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _RmsNorm(torch.autograd.Function):
    """`x / rms(x) * weight` over the last dimension (arXiv:1910.07467).

    Only x and one number a row are kept; autograd keeps the normalised rows as well.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return torch.mul(x, inverse).mul_(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        width = x.shape[-1]
        flat, of_row = x.reshape(-1, width), inverse.view(-1)
        gradient = gradient.reshape(-1, width)
        product = flat * gradient
        for_weight = product.T @ of_row if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, for_weight, None
        pull = (product @ weight).mul_(of_row.square()).div_(width)
        for_x = torch.mul(gradient, weight, out=product)
        for_x.addcmul_(flat, pull[:, None], value=-1).mul_(of_row[:, None])
        return for_x.view(x.shape), for_weight, None


rms_norm: Any = _RmsNorm.apply
"""`rms_norm(x, weight, eps)`: [..., width] and [width] to [..., width], float32."""
