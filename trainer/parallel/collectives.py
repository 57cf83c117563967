"""Exchanges between ranks that gradients pass through, in pairs: each one's backward is another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist

Group = dist.ProcessGroup

# Before torch 2.13 they have other names.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def add_up(x: Tensor, group: Group) -> Tensor:
    """The sum over the ranks; each rank's gradient is that of the sum."""
    return _paired(x, partial(_sum, group=group), _same)


def hand_out(x: Tensor, group: Group) -> Tensor:
    """The same on all ranks, which go on to do different things with it: gradients are added up."""
    return _paired(x, _same, partial(_sum, group=group))


def join(x: Tensor, dim: int, group: Group, *, summed: bool) -> Tensor:
    """The pieces of all ranks along a dimension, one after the other.

    Args:
        x: this rank's piece, as long as any other's.
        dim: the dimension.
        group: the ranks.
        summed: whether ranks go on to do different things with the whole, so that gradients are
            added up; otherwise each rank has the whole gradient and keeps its piece.
    """
    back = _sum_slice if summed else _slice
    return _paired(x, partial(_gather, dim=dim, group=group), partial(back, dim=dim, group=group))


def part(x: Tensor, dim: int, group: Group) -> Tensor:
    """This rank's piece of what all ranks have whole; its length is a multiple of theirs."""
    return _paired(x, partial(_slice, dim=dim, group=group), partial(_gather, dim=dim, group=group))


def add_up_part(x: Tensor, dim: int, group: Group) -> Tensor:
    """This rank's piece of the sum over the ranks; the length is a multiple of theirs."""
    there = partial(_sum_slice, dim=dim, group=group)
    return _paired(x, there, partial(_gather, dim=dim, group=group))


def exchange(x: Tensor, sent: Sequence[int], received: Sequence[int], group: Group) -> Tensor:
    """Rows for each rank sent to it, [sum(sent), …] to [sum(received), …], in order of ranks."""
    out, back = list(sent), list(received)
    there = partial(_all_to_all, sent=out, received=back, group=group)
    return _paired(x, there, partial(_all_to_all, sent=back, received=out, group=group))


_Exchange = Callable[[Tensor], Tensor]


class _Paired(torch.autograd.Function):
    """One exchange of the values on the way there, and one of the gradients on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: _Exchange, back: _Exchange) -> Tensor:
        ctx.back = back
        return there(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradient), None, None


def _paired(x: Tensor, there: _Exchange, back: _Exchange) -> Tensor:
    got: Tensor = cast(Any, _Paired).apply(x, there, back)
    return got


def _same(x: Tensor) -> Tensor:
    return x.view_as(x)


def _sum(x: Tensor, group: Group) -> Tensor:
    total = x.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def _gather(x: Tensor, dim: int, group: Group) -> Tensor:
    first = x.detach().movedim(dim, 0).contiguous()
    whole = first.new_empty(group.size() * first.shape[0], *first.shape[1:])
    _all_gather(whole, first, group=group)
    return whole.movedim(0, dim).contiguous()


def _slice(x: Tensor, dim: int, group: Group) -> Tensor:
    return x.detach().chunk(group.size(), dim)[group.rank()].contiguous()


def _sum_slice(x: Tensor, dim: int, group: Group) -> Tensor:
    first = x.detach().movedim(dim, 0).contiguous()
    piece = first.new_empty(first.shape[0] // group.size(), *first.shape[1:])
    _reduce_scatter(piece, first, group=group)
    return piece.movedim(0, dim).contiguous()


def _all_to_all(x: Tensor, sent: list[int], received: list[int], group: Group) -> Tensor:
    got = x.new_empty(sum(received), *x.shape[1:])
    dist.all_to_all_single(got, x.detach().contiguous(), received, sent, group=group)
    return got
