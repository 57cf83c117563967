"""Parts of a model on the CPU by functions that read, write and keep less than the model's own.

Norms, rotary embeddings and gated feed-forward layers are alike in Llama, Qwen, Mistral, Gemma and
many others. They are known by their code: what differs in a single instruction is left alone. What
they are given decides at each call: other formats, DTensors, a graph that is being compiled,
dropout or hooks on a layer go to the model's own code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache, wraps
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.activations import GELUTanh, SiLUActivation
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.llama import modeling_llama as llama

from .gated import gated, projection_of
from .last_block import selecting
from .rms_norm import rms_norm
from .rotary import rotate


def use_lean_functions(model: nn.Module) -> int:
    """Have the parts of a model that are known computed so, in place.

    Their classes are replaced by subclasses of the same name, so that weights, names and what looks
    for a class stay as they are.

    Returns:
        How many parts were found.
    """
    found = 0
    for module in model.modules():
        own: Any = type(module)
        kind = _lean(own)
        if kind is not None:
            module.__class__ = kind
            found += 1
    return found


@cache
def _lean(kind: Any) -> type[nn.Module] | None:
    """The class that takes the place of another class of modules; None leaves it."""
    forward: Any = kind.forward
    body: dict[str, Any] = {}
    if _same(forward, llama.LlamaRMSNorm.forward):
        body["forward"] = _norm(kind, "variance_epsilon", offset=0.0)
    elif "Gemma" in kind.__name__ and _is_gemma_norm(kind):
        body["forward"] = _norm(kind, "eps", offset=1.0)
    elif _same(forward, llama.LlamaMLP.forward):
        body["forward"] = _mlp(kind)
    elif _is_llama_block(kind):
        body.update(forward=selecting(forward), selection=None)
    elif "apply_rotary_pos_emb" in getattr(getattr(forward, "__code__", None), "co_names", ()):
        attention = _attention(forward, sys.modules[kind.__module__])
        if attention is None:
            return None
        body.update(forward=attention, is_llamas=_same(forward, llama.LlamaAttention.forward))
    else:
        return None
    return type(kind.__name__, (kind,), {**body, "__module__": kind.__module__})


def _same(one: Any, other: Any) -> bool:
    """Whether two functions are the same instructions on the same names."""
    first, second = _instructions(one), _instructions(other)
    return first is not None and first == second


def _instructions(function: Any) -> tuple[Any, ...] | None:
    """None of what is no function of Python's, or has names of a function around it."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or code.co_freevars:
        return None
    constants = tuple(value for value in code.co_consts if value != function.__doc__)
    return code.co_code, code.co_names, code.co_varnames, constants


def _is_llama_block(kind: Any) -> bool:
    """Whether it is one but for what transformers wraps around blocks to run them again."""
    if not issubclass(kind, GradientCheckpointingLayer):
        return False
    inner = getattr(kind.forward, "__wrapped__", None)
    return _same(inner, getattr(llama.LlamaDecoderLayer.forward, "__wrapped__", None))


def _is_gemma_norm(kind: Any) -> bool:
    from transformers.models.gemma import modeling_gemma as gemma

    own = gemma.GemmaRMSNorm
    return _same(kind.forward, own.forward) and _same(getattr(kind, "_norm", None), own._norm)


def _suits(*tensors: Tensor) -> bool:
    return not torch.compiler.is_compiling() and all(
        tensor.dtype == torch.float32 and tensor.is_cpu and not isinstance(tensor, DTensor)
        for tensor in tensors
    )


def _norm(kind: Any, eps: str, *, offset: float) -> Callable[..., Tensor]:
    own = kind.forward

    def forward(self: Any, x: Tensor) -> Tensor:
        if not _suits(x, self.weight):
            result: Tensor = own(self, x)
            return result
        weight = self.weight + offset if offset else self.weight
        normed: Tensor = rms_norm(x, weight, getattr(self, eps))
        return normed

    return forward


def _mlp(kind: Any) -> Callable[..., Tensor]:
    own = kind.forward

    def forward(self: Any, x: Tensor) -> Tensor:
        silu = _SILU.get(type(self.act_fn))
        if silu is not None and _suits(x):
            gate, up, down = (
                projection_of(layer, x) for layer in (self.gate_proj, self.up_proj, self.down_proj)
            )
            if gate is not None and up is not None and down is not None:
                return gated(x, gate, up, down, silu=silu)
        result: Tensor = own(self, x)
        return result

    return forward


_SILU: dict[type[nn.Module], bool] = {nn.SiLU: True, SiLUActivation: True, GELUTanh: False}
"""Activations that are known: SiLU, and GELU by tanh."""


def _attention(forward: FunctionType, module: Any) -> Callable[..., Any] | None:
    """The same function with other rotary embeddings; None where they are not the common ones."""
    own = module.apply_rotary_pos_emb
    alike = _same(own, llama.apply_rotary_pos_emb)
    if not alike or not _same(module.rotate_half, llama.rotate_half):
        return None

    def embed(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Any:
        if not _suits(q, k, cos, sin) or cos.requires_grad:
            return own(q, k, cos, sin, unsqueeze_dim)
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return rotate(q, cos, sin), rotate(k, cos, sin)

    names = {**forward.__globals__, "apply_rotary_pos_emb": embed}
    copy = FunctionType(
        forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__
    )
    copy.__kwdefaults__ = forward.__kwdefaults__

    @wraps(forward)
    def either(self: Any, *args: Any, **kwargs: Any) -> Any:
        # What compiles looks for a function's names in its module.
        chosen = forward if torch.compiler.is_compiling() else copy
        return chosen(self, *args, **kwargs)

    return either
