"""Modules that compute with this rank's pieces of their weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft.utils import AuxiliaryTrainingWrapper
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate

from .tensors import laid_out


def lay(
    module: nn.Module, name: str, mesh: DeviceMesh, placement: Placement, made: dict[int, DTensor]
) -> None:
    """Make a weight a DTensor over a one-dimensional mesh, in place.

    Args:
        module: the weight's own module.
        name: the weight.
        mesh: the ranks it is laid out over.
        placement: how.
        made: those laid out before by the identity of the weight, so that tied ones stay tied.
    """
    parameter = module._parameters[name]
    assert parameter is not None
    if id(parameter) not in made:
        laid = laid_out(parameter.data, mesh, [placement])
        made[id(parameter)] = nn.Parameter(laid, parameter.requires_grad)  # type: ignore[assignment]
    module._parameters[name] = made[id(parameter)]  # type: ignore[assignment]


def copies_of(module: nn.Module) -> list[nn.Module]:
    """A module itself, or those that an adapter's saved copy of it is made of."""
    if isinstance(module, AuxiliaryTrainingWrapper):
        saved: Any = module.modules_to_save
        return [module.original_module, *saved.values()]
    return [module]


@contextmanager
def local_weights(module: nn.Module, *, summed: bool) -> Iterator[None]:
    """Let a module's own DTensors be seen as this rank's pieces while it computes.

    Args:
        module: the module.
        summed: whether the gradients of weights that all ranks have whole are added up over them:
            so it is where ranks compute different parts; elsewhere they are the same already.
    """
    shown: list[str] = []
    for name, weight in module._parameters.items():
        if isinstance(weight, DTensor):
            gradient = [
                Partial() if summed and isinstance(placement, Replicate) else placement
                for placement in weight.placements
            ]
            # Found before the parameter of that name, which __getattr__ looks up.
            module.__dict__[name] = weight.to_local(grad_placements=gradient)
            shown.append(name)
    try:
        yield
    finally:
        for name in shown:
            del module.__dict__[name]


def compute_locally(module: nn.Module, *, summed: bool = True) -> None:
    """Have a module always compute with this rank's pieces, in place.

    Args:
        module: the module.
        summed: as `local_weights` has it.
    """
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with local_weights(module, summed=summed):
            return original(*args, **kwargs)

    module.forward = forward
