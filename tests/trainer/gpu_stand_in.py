"""A GPU to try the code for GPUs on, where there is none: its rules, and arithmetic on the CPU.

Torch's own wrappers and their autograd run; in place of the flash attention kernels are functions
that hold to what the kernels demand, and leave undone what they leave undone. So a call that a GPU
would refuse fails here as well. What this cannot show is speed, memory, and the kernels themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

_HALF = (torch.float16, torch.bfloat16)


def _checked(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, seen: Tensor) -> None:
    """What `mha_varlen_fwd` of flash attention 2 checks, which torch carries."""
    assert query.dtype in _HALF and key.dtype == value.dtype == query.dtype, "half precision"
    assert query.ndim == key.ndim == value.ndim == 3, "[tokens, heads, head_dim]"
    assert query.shape[2] % 8 == 0 and query.shape[2] <= 256, "head_dim"
    assert query.shape[1] % key.shape[1] == 0 and key.shape == value.shape, "heads"
    assert all(x.stride(-1) == 1 for x in (query, key, value)), "contiguous in the last dimension"
    for x in (bounds, seen):
        assert x.dtype == torch.int32 and x.is_contiguous() and x.device == query.device, "bounds"


def _documents(
    query: Tensor,
    key: Tensor,
    bounds: Tensor,
    seen: Tensor,
    longest: int,
    longest_seen: int,
    causal: bool,
    scale: float,
    left: int,
    right: int,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Of each document the queries, what they see, and the weights [heads, queries, keys]."""
    assert isinstance(longest, int) and isinstance(longest_seen, int), "the host knows the lengths"
    groups = query.shape[1] // key.shape[1]
    for (begin, end), (first, last) in zip(
        zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True),
        zip(seen[:-1].tolist(), seen[1:].tolist(), strict=True),
        strict=True,
    ):
        asks, at = (
            slice(begin, min(end, begin + longest)),
            slice(first, min(last, first + longest_seen)),
        )
        q = query[asks].float().transpose(0, 1)
        k = key[at].float().repeat_interleave(groups, 1).transpose(0, 1)
        # The last query is beside the last key.
        place = torch.arange(q.shape[1])[:, None] + (last - first) - (end - begin)
        apart = place - torch.arange(k.shape[1])
        hidden = torch.zeros_like(apart, dtype=torch.bool)
        if causal or right >= 0:
            hidden |= apart < -(0 if causal else right)
        if left >= 0:
            hidden |= apart > left
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(hidden, -torch.inf)
        yield asks, at, scores.softmax(-1)


def flash_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    seen: Tensor,
    longest: int,
    longest_seen: int,
    dropout: float,
    causal: bool,
    return_debug_mask: bool,
    *,
    scale: float | None = None,
    window_size_left: int | None = None,
    window_size_right: int | None = None,
    **_: Any,
) -> tuple[Tensor, ...]:
    _checked(query, key, value, bounds, seen)
    assert not dropout and not return_debug_mask
    scale = query.shape[2] ** -0.5 if scale is None else scale
    window = (window_size_left or 0, window_size_right or 0)
    groups = query.shape[1] // key.shape[1]
    # Rows beyond the longest are never written: here they are NaN.
    out = torch.full(query.shape, torch.nan)
    found = _documents(query, key, bounds, seen, longest, longest_seen, causal, scale, *window)
    for asks, at, weights in found:
        v = value[at].float().repeat_interleave(groups, 1).transpose(0, 1)
        out[asks] = (weights @ v).transpose(0, 1)
    sums = torch.zeros(query.shape[1], query.shape[0])
    seed = torch.zeros(2, dtype=torch.uint64)
    return out.to(query.dtype), sums, seed, seed[0], query.new_empty(0)


def flash_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    _sums: Tensor,
    bounds: Tensor,
    seen: Tensor,
    longest: int,
    longest_seen: int,
    dropout: float,
    causal: bool,
    *_: Any,
    scale: float | None = None,
    window_size_left: int | None = None,
    window_size_right: int | None = None,
) -> tuple[Tensor, ...]:
    _checked(query, key, value, bounds, seen)
    assert gradient.dtype == out.dtype == query.dtype and not dropout
    assert gradient.stride(-1) == 1
    scale = query.shape[2] ** -0.5 if scale is None else scale
    window = (window_size_left or 0, window_size_right or 0)
    groups = query.shape[1] // key.shape[1]
    gradients = [torch.zeros(x.shape) for x in (query, key, value)]
    found = _documents(query, key, bounds, seen, longest, longest_seen, causal, scale, *window)
    for asks, at, weights in found:
        q, g = (x[asks].float().transpose(0, 1) for x in (query, gradient))
        k, v = (x[at].float().repeat_interleave(groups, 1).transpose(0, 1) for x in (key, value))
        for_weights = g @ v.transpose(1, 2)
        for_scores = weights * (for_weights - (for_weights * weights).sum(-1, keepdim=True)) * scale
        shared = [for_scores.transpose(1, 2) @ q, weights.transpose(1, 2) @ g]
        gradients[0][asks] = (for_scores @ k).transpose(0, 1)
        for into, part in zip(gradients[1:], shared, strict=True):
            into[at] += part.unflatten(0, (-1, groups)).sum(1).transpose(0, 1)
    return tuple(x.to(query.dtype) for x in gradients)


@contextmanager
def stand_in(patch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0)) -> Iterator[None]:
    """Tensors say that they are on a GPU, and the kernels of flash attention are there."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", flash_forward, "CPU")
    library.impl("_flash_attention_backward", flash_backward, "CPU")
    patch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    patch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    try:
        yield
    finally:
        library._destroy()
        patch.undo()
