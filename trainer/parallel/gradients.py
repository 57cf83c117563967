"""The norm and the clipping of gradients that lie in pieces on several ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from .tensors import groups_of, local


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together, the same on all ranks.

    Each rank squares its own pieces. A sum over a dimension of the mesh is taken for the tensors
    that are sharded over it and for no others, so that shards, copies and plain tensors mix.

    Args:
        gradients: plain tensors or DTensors of any meshes; at least one.

    Returns:
        A scalar in float32 on the gradients' device.
    """
    pieces: dict[tuple[dist.ProcessGroup, ...], list[Tensor]] = defaultdict(list)
    for gradient in gradients:
        pieces[groups_of(gradient)].append(local(gradient))
    total: Tensor | None = None
    for groups, tensors in pieces.items():
        norms = torch._foreach_norm(tensors, 2, dtype=torch.float32)
        squares = torch.stack(norms).square().sum()
        for group in groups:
            dist.all_reduce(squares, group=group)
        total = squares if total is None else total + squares
    assert total is not None
    return total.sqrt()


def scale(gradients: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply all gradients by a scalar, in place."""
    torch._foreach_mul_([local(gradient) for gradient in gradients], factor)
