"""Between a whole tensor and the piece of it that a rank holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; all ranks that hold pieces of it ask together."""
    if isinstance(tensor, DTensor):
        full: Tensor = tensor.full_tensor()
        return full
    return tensor


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def groups_of(tensor: Tensor) -> tuple[dist.ProcessGroup, ...]:
    """The groups over which a tensor's pieces make up the whole; none where each rank has it.

    Raises:
        ValueError: the pieces are yet to be added up.
    """
    if not isinstance(tensor, DTensor):
        return ()
    mesh, groups = tensor.device_mesh, []
    for dimension, placement in enumerate(tensor.placements):
        if placement.is_partial():
            raise ValueError(f"a tensor is not summed yet: {tensor.placements}")
        if not isinstance(placement, Replicate) and mesh.size(dimension) > 1:
            groups.append(mesh.get_group(dimension))
    return tuple(groups)


@torch.no_grad()
def laid_out(
    full: Tensor,
    mesh: DeviceMesh,
    placements: Sequence[Placement],
    device: torch.device | None = None,
) -> DTensor:
    """This rank's piece of a whole tensor that all ranks have; nothing is communicated.

    Args:
        full: the whole tensor.
        mesh: the ranks.
        placements: how it lies on each dimension of the mesh.
        device: where the piece lies; None is where the ranks of the mesh compute, or `meta`.
    """
    everywhere = DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False)
    piece = everywhere.redistribute(placements=placements).to_local()
    laid = DTensor.from_local(
        piece.clone(memory_format=torch.contiguous_format),
        mesh,
        placements,
        run_check=False,
        shape=full.shape,
        stride=full.stride(),
    )
    # Only now: from_local puts what lies elsewhere on the GPUs of the mesh.
    return laid if device is None else cast(DTensor, laid.to(device))


def piece_of(full: Tensor, like: Tensor, device: torch.device | None = None) -> Tensor:
    """This rank's piece of a whole tensor that all ranks have; nothing is communicated.

    Args:
        full: the whole tensor.
        like: laid out as the result shall be; its values play no part.
        device: where the piece lies; None is where `like` does.
    """
    device = device or like.device
    if not isinstance(like, DTensor):
        return full.to(device)
    return laid_out(full, like.device_mesh, like.placements, device)
