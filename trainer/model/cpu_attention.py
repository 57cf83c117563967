"""Causal attention within documents on the CPU: torch's kernel for short ones, blocks for others.

Torch's flash attention multiplies pieces of 32 queries, too small for a CPU's products to be fast.
Blocks of 64 queries of all heads that share a key take half to two thirds of its time from some
hundred tokens on. What is kept is the same: neither keeps weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .cpu import small_products

_BLOCK = 64
_LONG = 128

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _Documents(torch.autograd.Function):
    """Attention over each document, without a copy of the others' gradients.

    The products in it are small, and MKL computes them whatever computes the large ones.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scale: float | None
    ) -> Tensor:
        """[rows, length, heads, head_dim] of what the queries see."""
        states, sums = [x.split(lengths, dim=2) for x in (query, key, value)], []
        rows, heads, length, width = query.shape
        scale = width**-0.5 if scale is None else scale
        attended = query.new_empty(rows, length, heads, value.shape[-1])
        with small_products():
            for q, k, v, out in zip(*states, attended.split(lengths, dim=1), strict=True):
                log_sum = None
                if _in_blocks(q):
                    _attend(_Grouped.of(q, k, v), out, scale)
                else:
                    part, log_sum = _flash(q, k, v, 0.0, True, scale=scale)
                    out.copy_(part.transpose(1, 2))
                sums.append(log_sum)
        ctx.save_for_backward(query, key, value, attended, *sums)
        ctx.lengths, ctx.scale = lengths, scale
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of query, key and value."""
        query, key, value, attended, *sums = ctx.saved_tensors
        # As transposed as the states are, so that what follows reads them without a copy.
        gradients = [
            torch.empty_like(x.transpose(1, 2)).transpose(1, 2) for x in (query, key, value)
        ]
        parts = [x.split(ctx.lengths, dim=2) for x in (query, key, value, *gradients)]
        outs = [x.transpose(1, 2).split(ctx.lengths, dim=2) for x in (gradient, attended)]
        with small_products():
            for q, k, v, gq, gk, gv, g, out, log_sum in zip(*parts, *outs, sums, strict=True):
                if log_sum is None:
                    _pull_back(_Grouped.of(q, k, v), g, out, (gq, gk, gv), ctx.scale)
                    continue
                found = _flash_backward(g, q, k, v, out, log_sum, 0.0, True, scale=ctx.scale)
                for into, part in zip((gq, gk, gv), found, strict=True):
                    into.copy_(part)
        return *gradients, None, None


documents_on_cpu: Any = _Documents.apply
"""`documents_on_cpu(query, key, value, lengths, scale)`: the first [rows, heads, length, head_dim],
key and value with their own number of heads, and the lengths of the documents that lie in a row, to
[rows, length, heads, head_dim]."""


def _in_blocks(query: Tensor) -> bool:
    """Whether blocks are faster, and nobody keeps the results of products to use them again."""
    rows, _, length, _ = query.shape
    alone = rows == 1 and query.dtype == torch.float32 and _get_current_dispatch_mode() is None
    return alone and length >= _LONG


class _Grouped(NamedTuple):
    """One document: [groups, heads of one, length, head_dim], and [groups, length, head_dim]."""

    query: Tensor
    key: Tensor
    value: Tensor

    @classmethod
    def of(cls, query: Tensor, key: Tensor, value: Tensor) -> _Grouped:
        return cls(query[0].unflatten(0, (key.shape[1], -1)), key[0], value[0])

    def block(self, states: Tensor, start: int, end: int) -> Tensor:
        """A block of queries, or of what has their shape: [groups, heads x block, head_dim]."""
        return states[:, :, start:end].flatten(1, 2)

    def weights(self, asked: Tensor, start: int, end: int) -> Tensor:
        """[groups, heads x block, end] of a block of queries, scaled as they are."""
        scores = torch.bmm(asked, self.key.transpose(1, 2)[:, :, :end])
        # Only the last keys of a block come after some of its queries.
        hidden = torch.full((end - start, end - start), float("-inf")).triu_(1)
        scores.unflatten(1, (-1, end - start))[..., start:].add_(hidden)
        return torch._softmax(scores, -1, False, out=scores)

    @property
    def blocks(self) -> list[tuple[int, int]]:
        length = self.query.shape[2]
        return [(at, min(at + _BLOCK, length)) for at in range(0, length, _BLOCK)]


def _attend(states: _Grouped, into: Tensor, scale: float) -> None:
    """Write what the queries see into [1, length, heads, head_dim]."""
    into = into[0].transpose(0, 1).unflatten(0, states.query.shape[:2])
    for start, end in states.blocks:
        weights = states.weights(states.block(states.query, start, end) * scale, start, end)
        seen = torch.bmm(weights, states.value[:, :end])
        into[:, :, start:end] = seen.unflatten(1, (-1, end - start))


def _pull_back(
    states: _Grouped,
    gradient: Tensor,
    attended: Tensor,
    into: tuple[Tensor, Tensor, Tensor],
    scale: float,
) -> None:
    """Write the gradients of a document's query, key and value; its weights are computed again.

    See arXiv:2205.14135, appendix B.4. `gradient` and `attended` are [1, heads, length, head_dim].
    """
    shape = states.query.shape[:2]
    # A row's sum of weight times gradient is what came out of it times its gradient.
    sums = (gradient * attended).sum(-1, keepdim=True)[0].unflatten(0, shape)
    gradient = gradient[0].unflatten(0, shape)
    for_query = into[0][0].unflatten(0, shape)
    for_key, for_value = torch.zeros_like(states.key), torch.zeros_like(states.value)
    for start, end in states.blocks:
        asked = states.block(states.query, start, end) * scale
        weights = states.weights(asked, start, end)
        pulled = states.block(gradient, start, end)
        for_value[:, :end].baddbmm_(weights.transpose(1, 2), pulled)
        for_scores = torch.bmm(pulled, states.value.transpose(1, 2)[:, :, :end])
        for_scores.sub_(states.block(sums, start, end)).mul_(weights)
        found = torch.bmm(for_scores, states.key[:, :end]).mul_(scale)
        for_query[:, :, start:end] = found.unflatten(1, (-1, end - start))
        for_key[:, :end].baddbmm_(for_scores.transpose(1, 2), asked)
    into[1][0].copy_(for_key)
    into[2][0].copy_(for_value)
