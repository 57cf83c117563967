"""The gated feed-forward layer as one function: the product of its two branches is not kept."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from .lora_linear import LoraLinear, with_product

_aten: Any = torch.ops.aten


class Projection(NamedTuple):
    """What a linear layer computes: `x @ weight.T + bias + scale * x @ a.T @ b.T`.

    Attributes:
        weight: [out, in].
        bias: [out].
        a: [rank, in] of an adapter; None without one.
        b: [out, rank].
        scale: of the adapter.
    """

    weight: Tensor
    bias: Tensor | None
    a: Tensor | None
    b: Tensor | None
    scale: float

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """[tokens, out] of [tokens, in], and what the adapter keeps [tokens, rank]."""
        if self.bias is None:
            output = x @ self.weight.T
        else:
            output = torch.addmm(self.bias, x, self.weight.T)
        if self.a is None or self.b is None:
            return output, None
        low = x @ self.a.T
        return with_product(output, low, self.b.T, self.scale), low

    def of_low(self, gradient: Tensor) -> Tensor | None:
        """The gradient of what the adapter keeps."""
        return None if self.b is None else (gradient @ self.b).mul_(self.scale)

    def of_input(
        self, gradient: Tensor, for_low: Tensor | None, into: Tensor | None = None
    ) -> Tensor:
        """The gradient of x, added to one that is there."""
        into = gradient @ self.weight if into is None else into.addmm_(gradient, self.weight)
        if for_low is not None and self.a is not None:
            into.addmm_(for_low, self.a)
        return into

    def of_weights(
        self,
        x: Tensor,
        low: Tensor | None,
        gradient: Tensor,
        for_low: Tensor | None,
        needed: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        """The gradients of weight, bias, a and b, of those that are needed."""
        for_weight = gradient.T @ x if needed[0] else None
        for_bias = gradient.sum(0) if needed[1] else None
        for_a = for_low.T @ x if needed[2] and for_low is not None else None
        for_b = (low.T @ gradient).mul_(self.scale).T if needed[3] and low is not None else None
        return for_weight, for_bias, for_a, for_b


def projection_of(layer: nn.Module, x: Tensor) -> Projection | None:
    """What a linear layer computes for an input, if it is no more than a product or two."""
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
        return None
    if isinstance(layer, LoraLinear):
        return Projection(*layer.tensors(x.dtype)) if layer.plain(x) else None
    if type(layer) is not nn.Linear or isinstance(layer.weight, DTensor):
        return None
    plain = layer.weight.dtype == x.dtype and not torch.is_autocast_enabled(x.device.type)
    return Projection(layer.weight, layer.bias, None, None, 0.0) if plain else None


class _Gated(torch.autograd.Function):
    """`down(act(gate(x)) * up(x))`; the product is computed again for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, silu: bool, scales: tuple[float, float, float], *tensors: Tensor | None
    ) -> Tensor:
        layers = _layers(tensors, scales)
        flat = x.flatten(0, -2)
        (gate, low_gate), (up, low_up) = layers[0](flat), layers[1](flat)
        output, low_down = layers[2](_act(gate, silu).mul_(up))
        ctx.save_for_backward(x, gate, up, low_gate, low_up, low_down, *tensors)
        ctx.silu, ctx.scales = silu, scales
        # No view to autograd: some models change in place what a layer gives them.
        shaped: Tensor = _aten._unsafe_view(output, (*x.shape[:-1], output.shape[-1]))
        return shaped

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, gate, up, low_gate, low_up, low_down, *tensors = ctx.saved_tensors
        layer_gate, layer_up, layer_down = _layers(tensors, ctx.scales)
        needs_x, needed = ctx.needs_input_grad[0], ctx.needs_input_grad[3:]
        flat, gradient = x.flatten(0, -2), gradient.flatten(0, -2)
        acted = _act(gate, ctx.silu)
        product = acted * up
        for_low = layer_down.of_low(gradient)
        for_product = layer_down.of_input(gradient, for_low)
        of_down = layer_down.of_weights(product, low_down, gradient, for_low, needed[8:])
        for_gate = torch.mul(for_product, up, out=product)
        _act_backward(for_gate, gate, ctx.silu)
        for_up = for_product.mul_(acted)
        del acted
        for_low, for_x = layer_gate.of_low(for_gate), None
        if needs_x:
            for_x = layer_gate.of_input(for_gate, for_low)
        of_gate = layer_gate.of_weights(flat, low_gate, for_gate, for_low, needed[:4])
        for_low = layer_up.of_low(for_up)
        of_up = layer_up.of_weights(flat, low_up, for_up, for_low, needed[4:8])
        if for_x is not None:
            for_x = layer_up.of_input(for_up, for_low, for_x).view(x.shape)
        return for_x, None, None, *of_gate, *of_up, *of_down


def gated(x: Tensor, gate: Projection, up: Projection, down: Projection, *, silu: bool) -> Tensor:
    """`down(act(gate(x)) * up(x))`, [..., width] to [..., width].

    Args:
        x: the input.
        gate: the layer that goes through the activation.
        up: the one beside it.
        down: the one of their product.
        silu: whether the activation is SiLU; else it is GELU by tanh.
    """
    layers = (gate, up, down)
    tensors = [tensor for layer in layers for tensor in layer[:4]]
    output: Tensor = _gated(x, silu, tuple(layer.scale for layer in layers), *tensors)
    return output


_gated: Any = _Gated.apply


def _layers(tensors: Any, scales: tuple[float, ...]) -> list[Projection]:
    parts = (tensors[4 * n : 4 * n + 4] for n in range(len(scales)))
    return [
        Projection(weight, bias, a, b, scale)
        for (weight, bias, a, b), scale in zip(parts, scales, strict=True)
    ]


def _act(x: Tensor, silu: bool) -> Tensor:
    result: Tensor = _aten.silu(x) if silu else _aten.gelu(x, approximate="tanh")
    return result


def _act_backward(gradient: Tensor, x: Tensor, silu: bool) -> None:
    if silu:
        _aten.silu_backward.grad_input(gradient, x, grad_input=gradient)
    else:
        _aten.gelu_backward.grad_input(gradient, x, approximate="tanh", grad_input=gradient)
