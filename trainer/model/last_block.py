"""The last block of a model computes its feed-forward layer for the supervised positions alone.

What it makes of other positions is read by nothing: attention, which mixes positions, is behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Selection:
    """The positions that are supervised in the forward pass under way.

    Attributes:
        positions: [supervised] int64 in the flattened rows; None outside of a loss.
        done: whether a block has left the others out.
    """

    def __init__(self) -> None:
        self.positions: Tensor | None = None
        self.done = False

    def begin(self, positions: Tensor | None) -> None:
        """A forward pass begins, or is over (None)."""
        self.positions, self.done = positions, False

    def take(self, hidden: Tensor) -> Tensor:
        """Hidden states [rows, length, width] to those of supervised positions, [1, n, width]."""
        assert self.positions is not None
        chosen: Tensor = _choose(hidden.flatten(0, 1), self.positions)
        self.done = True
        return chosen.unsqueeze(0)


class _Choose(torch.autograd.Function):
    """Rows by number, each at most once: their gradients are put back, not added up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(numbers)
        ctx.shape = rows.shape
        return rows.index_select(0, numbers)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (numbers,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, numbers, gradient), None


_choose: Any = _Choose.apply


def selecting(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The forward pass of a Llama block that takes a selection into account, if it is given one.

    Args:
        own: the block's own.
    """

    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        selection: Selection | None = getattr(self, "selection", None)
        if selection is None or args or not _applies(self, selection, hidden_states):
            return own(self, hidden_states, *args, **kwargs)
        normed = self.input_layernorm(hidden_states)
        attended, _ = self.self_attn(hidden_states=normed, **kwargs)
        residual = selection.take(hidden_states + attended)
        fed: Tensor = self.mlp(self.post_attention_layernorm(residual))
        return residual + fed

    return forward


def _applies(block: Any, selection: Selection, hidden: Tensor) -> bool:
    """Blocks that run again in the backward pass, or are compiled, keep to their own code."""
    again = block.gradient_checkpointing and block.training
    plain = not again and not torch.compiler.is_compiling() and not isinstance(hidden, DTensor)
    return plain and selection.positions is not None and selection.positions.numel() > 0


def give_selection(model: nn.Module, selection: Selection) -> bool:
    """Let the last block of a model know what is selected; whether it has one that looks at it.

    Where weights are split within layers, a rank may hold a part of the positions only: not there.
    """
    blocks = [module for module in model.modules() if hasattr(type(module), "selection")]
    if not blocks or any(_is_split(parameter) for parameter in blocks[-1].parameters()):
        return False
    blocks[-1].selection = selection  # type: ignore[assignment]
    return True


def _is_split(parameter: nn.Parameter) -> bool:
    mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
    return mesh is not None and "tp" in (mesh.mesh_dim_names or ())
