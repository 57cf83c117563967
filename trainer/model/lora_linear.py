"""The LoRA layer of PEFT with its products joined: fewer passes over the activations."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F


class LoraLinear(lora.Linear):
    """A frozen linear layer with an adapter beside it.

    PEFT scales and adds the adapter's output, and autograd adds up the gradients of both paths:
    each is a pass over the activations that a product can do on its way. What is more than the
    plain case (DoRA, dropout, several adapters, a base that is trained, split or quantized) is
    left to PEFT.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        if args or kwargs or not self._plain(x):
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        (name,) = self.active_adapters
        base, a, b = self.base_layer, self.lora_A[name].weight, self.lora_B[name].weight
        joined: Tensor = _joined(x, base.weight, base.bias, a, b, self.scaling[name])
        return joined

    def _plain(self, x: Tensor) -> bool:
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return False
        (name,) = self.active_adapters
        base = self.base_layer
        if name not in self.lora_A or name in self.lora_variant or type(base) is not nn.Linear:
            return False
        dropout = self.lora_dropout[name]
        weights = (base.weight, self.lora_A[name].weight, self.lora_B[name].weight)
        return (
            (isinstance(dropout, nn.Identity) or not self.training)
            and not base.weight.requires_grad
            and (base.bias is None or not base.bias.requires_grad)
            and all(w.dtype == x.dtype and not isinstance(w, DTensor) for w in weights)
            and not torch.is_autocast_enabled(x.device.type)
        )


class _Joined(torch.autograd.Function):
    """`x @ weight.T + bias + scaling * x @ a.T @ b.T`, with gradients for x, a and b."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        flat = x.flatten(0, -2)
        output = F.linear(flat, weight, bias)
        low = flat @ a.T
        output.addmm_(low, b.T, alpha=scale)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = scale
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        flat = gradient.flatten(0, -2)
        for_low = (flat @ b).mul_(ctx.scale)
        for_x = None
        if ctx.needs_input_grad[0]:
            for_x = (flat @ weight).addmm_(for_low, a).view(x.shape)
        for_a = for_low.T @ x.flatten(0, -2)
        for_b = (low.T @ flat).mul_(ctx.scale).T
        return for_x, None, None, for_a, for_b, None


_joined: Any = _Joined.apply
