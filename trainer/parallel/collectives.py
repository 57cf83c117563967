"""Exchanges between ranks that gradients pass through, in pairs: each one's backward is another."""

from __future__ import annotations

from collections.abc import Sequence
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
    summed: Tensor = cast(Any, _AddUp).apply(x, group)
    return summed


def hand_out(x: Tensor, group: Group) -> Tensor:
    """The same on all ranks, which go on to do different things with it: gradients are added up."""
    same: Tensor = cast(Any, _HandOut).apply(x, group)
    return same


def join(x: Tensor, dim: int, group: Group, *, summed: bool) -> Tensor:
    """The pieces of all ranks along a dimension, one after the other.

    Args:
        x: this rank's piece, as long as any other's.
        dim: the dimension.
        group: the ranks.
        summed: whether ranks go on to do different things with the whole, so that gradients are
            added up; otherwise each rank has the whole gradient and keeps its piece.
    """
    joined: Tensor = cast(Any, _JoinSum if summed else _Join).apply(x, dim, group)
    return joined


def part(x: Tensor, dim: int, group: Group) -> Tensor:
    """This rank's piece of what all ranks have whole; its length is a multiple of theirs."""
    piece: Tensor = cast(Any, _Part).apply(x, dim, group)
    return piece


def add_up_part(x: Tensor, dim: int, group: Group) -> Tensor:
    """This rank's piece of the sum over the ranks; the length is a multiple of theirs."""
    piece: Tensor = cast(Any, _AddUpPart).apply(x, dim, group)
    return piece


def exchange(x: Tensor, sent: Sequence[int], received: Sequence[int], group: Group) -> Tensor:
    """Rows for each rank sent to it, [sum(sent), …] to [sum(received), …], in order of ranks."""
    got: Tensor = cast(Any, _Exchange).apply(x, list(sent), list(received), group)
    return got


class _AddUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return _sum(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _HandOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _sum(gradient, ctx.group), None


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group) -> Tensor:
        ctx.dim, ctx.group = dim, group
        return _gather(x, dim, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _slice(gradient, ctx.dim, ctx.group), None, None


class _JoinSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group) -> Tensor:
        ctx.dim, ctx.group = dim, group
        return _gather(x, dim, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _sum_slice(gradient, ctx.dim, ctx.group), None, None


class _Part(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group) -> Tensor:
        ctx.dim, ctx.group = dim, group
        return _slice(x, dim, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _gather(gradient, ctx.dim, ctx.group), None, None


class _AddUpPart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, group: Group) -> Tensor:
        ctx.dim, ctx.group = dim, group
        return _sum_slice(x, dim, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _gather(gradient, ctx.dim, ctx.group), None, None


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], received: list[int], group: Group) -> Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _all_to_all(x, sent, received, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _all_to_all(gradient, ctx.received, ctx.sent, ctx.group), None, None, None


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
