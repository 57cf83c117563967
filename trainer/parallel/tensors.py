"""Between a whole tensor and the piece of it that a rank holds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; all ranks that hold pieces of it ask together."""
    if isinstance(tensor, DTensor):
        full: Tensor = tensor.full_tensor()
        return full
    return tensor


@torch.no_grad()
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
    mesh = like.device_mesh
    everywhere = DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False)
    local = everywhere.redistribute(placements=like.placements).to_local()
    return DTensor.from_local(
        local.clone().to(device),
        mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )
