"""The norm and the clipping of gradients that lie in pieces on several ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, Replicate


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
        if isinstance(gradient, DTensor):
            pieces[_groups(gradient)].append(gradient.to_local())
        else:
            pieces[()].append(gradient)
    total: Tensor | None = None
    for groups, tensors in pieces.items():
        norms = torch._foreach_norm(tensors, 2, dtype=torch.float32)
        squares = torch.stack(norms).square().sum()
        for group in groups:
            dist.all_reduce(squares, group=group)
        total = squares if total is None else total + squares
    assert total is not None
    return total.sqrt()


def _groups(gradient: DTensor) -> tuple[dist.ProcessGroup, ...]:
    """The groups over which a gradient's pieces make up the whole."""
    mesh, groups = gradient.device_mesh, []
    for dimension, placement in enumerate(gradient.placements):
        if placement.is_partial():
            raise ValueError(f"a gradient is not summed yet: {gradient.placements}")
        if not isinstance(placement, Replicate) and mesh.size(dimension) > 1:
            groups.append(mesh.get_group(dimension))
    return tuple(groups)


def scale(gradients: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply all gradients by a scalar, in place."""
    local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    torch._foreach_mul_(local, factor)
