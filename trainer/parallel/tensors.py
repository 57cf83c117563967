"""Between a whole tensor and the piece of it that a rank holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; all ranks that hold pieces of it ask together."""
    if isinstance(tensor, DTensor):
        full: Tensor = tensor.full_tensor()
        return full
    return tensor


def whole_on_main(values: Any, *, main: bool) -> Any:
    """Nested dicts and lists with each tensor whole on the main rank's CPU, and None elsewhere.

    All ranks call it together. Never more than one whole tensor is on a GPU at a time.
    """
    if isinstance(values, Tensor):
        gathered = whole(values.detach())
        return gathered.cpu() if main else None
    if isinstance(values, Mapping):
        return {key: whole_on_main(value, main=main) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)(whole_on_main(value, main=main) for value in values)
    return values


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
