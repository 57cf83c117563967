"""Rotary position embeddings without the copies that turning a half makes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Rotate(torch.autograd.Function):
    """`x * cos + rotate_half(x) * sin` (arXiv:2104.09864). Only cos and sin are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        low, high = x.tensor_split(2, dim=-1)
        sin_low, sin_high = sin.tensor_split(2, dim=-1)
        turned = x * cos
        to_low, to_high = turned.tensor_split(2, dim=-1)
        to_low.addcmul_(high, sin_low, value=-1)
        to_high.addcmul_(low, sin_high)
        return turned

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        low, high = gradient.tensor_split(2, dim=-1)
        sin_low, sin_high = sin.tensor_split(2, dim=-1)
        back = gradient * cos
        to_low, to_high = back.tensor_split(2, dim=-1)
        to_low.addcmul_(high, sin_high)
        to_high.addcmul_(low, sin_low, value=-1)
        return back, None, None


rotate: Any = _Rotate.apply
"""`rotate(x, cos, sin)`: x [rows, heads, length, head_dim], the others [rows, 1, length,
head_dim]."""
