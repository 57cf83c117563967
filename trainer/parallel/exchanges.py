"""What the ranks of tensor parallelism hand each other before and after a split layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .collectives import Group, add_up, add_up_part, hand_out, join, part


class Exchanges:
    """Hooks that bring activations [rows, length, …] into a layer, and its outputs out of it.

    Args:
        group: the `tp` ranks.
        sequence: whether each has a part of the sequence between the split layers.
    """

    def __init__(self, group: Group, *, sequence: bool) -> None:
        self._group, self._sequence = group, sequence
        self._length = 0

    def enter(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The whole sequence goes in, and different parts of the layer work on it."""
        return self._with_whole(args, kwargs, summed=True)

    def enter_same(
        self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The whole sequence goes in, and all ranks do the same with it."""
        return self._with_whole(args, kwargs, summed=False)

    def leave_same(self, _module: nn.Module, _args: Any, out: Any) -> Any:
        """Each rank keeps its part of what all have."""
        if isinstance(out, torch.Tensor):
            return self.to_part(out)
        return (self.to_part(out[0]), *out[1:])

    def _with_whole(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], *, summed: bool
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (self._whole(args[0], summed=summed), *args[1:]), kwargs
        states = self._whole(kwargs["hidden_states"], summed=summed)
        return args, {**kwargs, "hidden_states": states}

    def _whole(self, x: Tensor, *, summed: bool) -> Tensor:
        if not self._sequence:
            return hand_out(x, self._group)
        return join(x, 1, self._group, summed=summed).narrow(1, 0, self._length)

    def leave(self, x: Tensor) -> Tensor:
        """The sum of all ranks' outputs: whole, or each rank's part of the sequence of it."""
        if not self._sequence:
            return add_up(x, self._group)
        return add_up_part(self._padded(x), 1, self._group)

    def to_part(self, x: Tensor) -> Tensor:
        """This rank's part of a sequence that all have."""
        return part(self._padded(x), 1, self._group)

    def _padded(self, x: Tensor) -> Tensor:
        """[rows, length, …] to a length that the ranks can share."""
        return F.pad(x, (0, 0, 0, -x.shape[1] % self._group.size()))

    def enter_sequence(
        self, _layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """From the first layer on each rank has a part of the sequence."""
        self._length = args[0].shape[1]
        return (self.to_part(args[0]), *args[1:]), kwargs

    def leave_sequence(self, _layer: nn.Module, _args: Any, out: Any) -> Any:
        """After the last layer each rank has the whole sequence."""
        # Not as a view, which FSDP warns of where it leaves a block.
        if isinstance(out, torch.Tensor):
            return self._whole(out, summed=False).clone()
        return (self._whole(out[0], summed=False).clone(), *out[1:])
