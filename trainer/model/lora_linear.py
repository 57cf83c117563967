"""The LoRA layer of PEFT with its products joined: fewer passes over the activations."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode


class LoraLinear(lora.Linear):
    """A frozen linear layer with an adapter beside it.

    PEFT scales and adds the adapter's output, and autograd adds up the gradients of both paths:
    each is a pass over the activations that a product can do on its way. What is more than the
    plain case (DoRA, dropout, several adapters, a base that is trained, split or quantized) is
    left to PEFT.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        if args or kwargs or not self.plain(x):
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        joined: Tensor = _joined(x, *self.tensors(x.dtype))
        return joined

    def tensors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | None, Tensor, Tensor, float]:
        """Weight and bias of the base, the adapter's two factors, and its scale.

        In half precision the adapter is float32 beside its base, and multiplied as the base is.
        """
        (name,) = self.active_adapters
        base: Any = self.base_layer
        pair: tuple[Any, Any] = self.lora_A[name].weight, self.lora_B[name].weight
        a, b = (weight.to(dtype) for weight in pair)
        return base.weight, base.bias, a, b, self.scaling[name]

    def plain(self, x: Tensor) -> bool:
        """Whether the layer is, for this input, no more than two products and their sum."""
        if self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return False
        (name,) = self.active_adapters
        base = self.base_layer
        if name not in self.lora_A or name in self.lora_variant or type(base) is not nn.Linear:
            return False
        dropout = self.lora_dropout[name]
        weights = (base.weight, self.lora_A[name].weight, self.lora_B[name].weight)
        formats = {x.dtype}
        if torch.is_autocast_enabled(x.device.type):
            if torch.get_autocast_dtype(x.device.type) != x.dtype:
                return False
            formats.add(torch.float32)
        return (
            (isinstance(dropout, nn.Identity) or not self.training)
            and not base.weight.requires_grad
            and (base.bias is None or not base.bias.requires_grad)
            and base.weight.dtype == x.dtype
            and all(w.dtype in formats and not isinstance(w, DTensor) for w in weights)
        )


def with_product(output: Tensor, one: Tensor, other: Tensor, scale: float) -> Tensor:
    """`output + scale * one @ other`, in the place of `output` where nothing else holds it.

    Selective activation checkpointing does: it keeps the results of products.
    """
    watched = not torch.compiler.is_compiling() and _get_current_dispatch_mode() is not None
    if watched:
        return output.addmm(one, other, alpha=scale)
    return output.addmm_(one, other, alpha=scale)


class _Joined(torch.autograd.Function):
    """`x @ weight.T + bias + scaling * x @ a.T @ b.T`, with gradients for x, a and b."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        flat = x.flatten(0, -2)
        output = F.linear(flat, weight, bias)
        low = flat @ a.T
        output = with_product(output, low, b.T, scale)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = scale
        # No view to autograd: some models change in place what a layer gives them.
        shaped: Tensor = torch.ops.aten._unsafe_view(output, (*x.shape[:-1], weight.shape[0]))
        return shaped

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
