"""Causal attention within documents on the CPU: torch's kernel for short ones, blocks for others.

Torch's flash attention multiplies pieces of 32 queries, too small for a CPU's products to be fast.
Blocks of 64 or 128 queries of all heads that share a key take half to two thirds of its time from
some hundred tokens on. Short documents keep their weights for the way back, where computing them
again would cost more than their few megabytes; long ones keep none, as flash attention.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import chain, islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .cpu import onednn_computes, small_products

_LONG = 128
_BLOCK = 64
# oneDNN is faster from here on, but takes a while to set out each shape that it does not know: the
# last block of a document has one of its own, and long documents have more than are kept.
_LARGE_BLOCK = 128
_FEW_SHAPES = 512
# Of a document, so that they stay a small part of what a layer keeps: 4 MiB.
_KEPT_WEIGHTS = 1 << 20

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _Documents(torch.autograd.Function):
    """Attention over each document, without a copy of the others' gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        lengths: list[int],
        scale: float | None,
        places: list[Tensor] | None,
    ) -> Tensor:
        """[rows, asked, heads, head_dim] of what the queries see."""
        rows, heads, length, width = query.shape
        scale = width**-0.5 if scale is None else scale
        asked = lengths if places is None else [len(of_one) for of_one in places]
        attended = query.new_empty(rows, length, heads, value.shape[-1])
        split = (query.split(asked, 2), key.split(lengths, 2), value.split(lengths, 2))
        sums: list[Tensor | None] = []
        weights: list[list[Tensor]] = []
        pulled_back = any(ctx.needs_input_grad)
        for n, (q, k, v, out) in enumerate(zip(*split, attended.split(asked, 1), strict=True)):
            log_sum, kept = None, []
            if places is not None or _in_blocks(q):
                states = _Grouped.of(q, k, v, None if places is None else places[n], scale)
                few = q.shape[1] * q.shape[2] * lengths[n] <= _KEPT_WEIGHTS
                kept = _attend(states, out, keep=few and pulled_back)
            else:
                with small_products():
                    part, log_sum = _flash(q, k, v, 0.0, True, scale=scale)
                out.copy_(part.transpose(1, 2))
            sums.append(log_sum)
            weights.append(kept)
        ctx.save_for_backward(query, key, value, attended, *sums, *chain.from_iterable(weights))
        ctx.asked, ctx.lengths, ctx.scale, ctx.places = asked, lengths, scale, places
        ctx.kept = [len(of_one) for of_one in weights]
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of query, key and value."""
        query, key, value, attended, *rest = ctx.saved_tensors
        sums, weights = rest[: len(ctx.kept)], iter(rest[len(ctx.kept) :])
        # As transposed as the states are, so that what follows reads them without a copy.
        gradients = [
            torch.empty_like(x.transpose(1, 2)).transpose(1, 2) for x in (query, key, value)
        ]
        lengths, places = (ctx.asked, ctx.lengths, ctx.lengths), ctx.places
        parts = [
            x.split(of_one, dim=2)
            for x, of_one in zip((query, key, value, *gradients), lengths * 2, strict=True)
        ]
        outs = [x.transpose(1, 2).split(ctx.asked, dim=2) for x in (gradient, attended)]
        documents = zip(*parts, *outs, sums, strict=True)
        for n, (q, k, v, gq, gk, gv, g, out, log_sum) in enumerate(documents):
            if log_sum is None:
                states = _Grouped.of(q, k, v, None if places is None else places[n], ctx.scale)
                _pull_back(states, g, out, (gq, gk, gv), list(islice(weights, ctx.kept[n])))
                continue
            with small_products():
                found = _flash_backward(g, q, k, v, out, log_sum, 0.0, True, scale=ctx.scale)
            for into, part in zip((gq, gk, gv), found, strict=True):
                into.copy_(part)
        return *gradients, None, None, None


def documents_on_cpu(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: list[int],
    scale: float | None,
    places: list[Tensor] | None = None,
) -> Tensor:
    """What queries see of their documents, up to themselves.

    Args:
        query: [rows, heads, asked, head_dim].
        key: [rows, heads of its own, length, head_dim].
        value: as `key`.
        lengths: of the documents that lie in a row.
        scale: of the scores; None for that of the head's size.
        places: int64, rising, where in its document each query is, if not all of it asks; for one
            row in float32.

    Returns:
        [rows, asked, heads, head_dim].
    """
    attended: Tensor = _Documents.apply(query, key, value, lengths, scale, places)  # type: ignore[no-untyped-call]
    return attended


def _in_blocks(query: Tensor) -> bool:
    """Whether blocks are faster, and nobody keeps the results of products to use them again."""
    rows, _, length, _ = query.shape
    alone = rows == 1 and query.dtype == torch.float32 and _get_current_dispatch_mode() is None
    return alone and length >= _LONG


class _Block(NamedTuple):
    """Some queries of a document.

    Attributes:
        start, end: which of its queries.
        first: the place of the first one: they all see the keys up to there.
        seen: how many keys the last one sees.
    """

    start: int
    end: int
    first: int
    seen: int

    def products(self) -> AbstractContextManager[None]:
        """Have the products of a block computed by what is fastest at them."""
        return nullcontext() if self.end - self.start == _LARGE_BLOCK else small_products()


class _Grouped(NamedTuple):
    """One document.

    Attributes:
        query: [groups, heads of one, asked, head_dim].
        key, value: [groups, length, head_dim].
        places: [asked], where each query is; None if all of the document asks.
        scale: of the scores.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    places: Tensor | None
    scale: float

    @classmethod
    def of(
        cls, query: Tensor, key: Tensor, value: Tensor, places: Tensor | None, scale: float
    ) -> _Grouped:
        grouped = query[0].unflatten(0, (key.shape[1], -1))
        return cls(grouped, key[0], value[0], places, scale)

    def blocks(self) -> list[_Block]:
        asked = self.query.shape[2]
        few = self.places is None and asked <= _FEW_SHAPES
        size = _LARGE_BLOCK if few and onednn_computes() else _BLOCK
        bounds = [(at, min(at + size, asked)) for at in range(0, asked, size)]
        if self.places is None:
            return [_Block(start, end, start, end) for start, end in bounds]
        at = self.places.tolist()
        return [_Block(start, end, at[start], at[end - 1] + 1) for start, end in bounds]

    def cut(self, states: Tensor, block: _Block) -> Tensor:
        """A block of queries, or of what has their shape: [groups, heads x block, head_dim]."""
        return states[:, :, block.start : block.end].flatten(1, 2)

    def weights(self, asked: Tensor, block: _Block) -> Tensor:
        """[groups, heads x block, seen] of a block of queries, scaled as they are."""
        start, end, first, seen = block
        scores = torch.bmm(asked, self.key.transpose(1, 2)[:, :, :seen])
        # Only the last keys of a block come after some of its queries.
        if self.places is None:
            hidden = torch.ones(end - start, end - start, dtype=torch.bool).triu_(1)
        else:
            hidden = torch.arange(first, seen) > self.places[start:end, None]
        scores.unflatten(1, (-1, end - start))[..., first:].masked_fill_(hidden, float("-inf"))
        return torch._softmax(scores, -1, False, out=scores)


def _attend(states: _Grouped, into: Tensor, *, keep: bool) -> list[Tensor]:
    """Write what the queries see into [1, asked, heads, head_dim].

    Returns:
        The weights of each block, [groups, heads x block, seen]; none if they are not to be kept.
    """
    kept = []
    into = into[0].transpose(0, 1).unflatten(0, states.query.shape[:2])
    for block in states.blocks():
        with block.products():
            weights = states.weights(states.cut(states.query, block) * states.scale, block)
            seen = torch.bmm(weights, states.value[:, : block.seen])
        size = block.end - block.start
        into[:, :, block.start : block.end] = seen.unflatten(1, (-1, size))
        if keep:
            kept.append(weights)
    return kept


def _pull_back(
    states: _Grouped,
    gradient: Tensor,
    attended: Tensor,
    into: tuple[Tensor, Tensor, Tensor],
    kept: list[Tensor],
) -> None:
    """Write the gradients of a document's query, key and value; weights not kept are found again.

    See arXiv:2205.14135, appendix B.4. `gradient` and `attended` are [1, heads, asked, head_dim].
    """
    shape, scale = states.query.shape[:2], states.scale
    # A row's sum of weight times gradient is what came out of it times its gradient.
    sums = (gradient * attended).sum(-1, keepdim=True)[0].unflatten(0, shape)
    gradient = gradient[0].unflatten(0, shape)
    for_query = into[0][0].unflatten(0, shape)
    for_key, for_value = torch.zeros_like(states.key), torch.zeros_like(states.value)
    for n, block in enumerate(states.blocks()):
        seen = block.seen
        with block.products():
            asked = states.cut(states.query, block) * scale
            weights = kept[n] if kept else states.weights(asked, block)
            pulled = states.cut(gradient, block)
            for_value[:, :seen].baddbmm_(weights.transpose(1, 2), pulled)
            for_scores = torch.bmm(pulled, states.value.transpose(1, 2)[:, :, :seen])
            for_scores.sub_(states.cut(sums, block)).mul_(weights)
            found = torch.bmm(for_scores, states.key[:, :seen]).mul_(scale)
            for_key[:, :seen].baddbmm_(for_scores.transpose(1, 2), asked)
        size = block.end - block.start
        for_query[:, :, block.start : block.end] = found.unflatten(1, (-1, size))
    into[1][0].copy_(for_key)
    into[2][0].copy_(for_value)
