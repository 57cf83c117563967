"""DoRA (arXiv:2402.09353) where tensor parallelism splits a layer: the norms are of whole rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F

from .collectives import Group
from .local import local_weights


class SplitMagnitude:
    """Replaces the forward pass of PEFT's `DoraLinearLayer`, the vector of magnitudes.

    Of a layer that splits its outputs each rank has whole rows, and the magnitudes of these. Of one
    that splits its inputs it has a part of each row: the squares are added up, and all ranks have
    all magnitudes.

    Args:
        vector: the module whose weight is the vector, laid out over the ranks.
        group: the ranks that have parts of each row; None where rows are whole.
        leave: how the layer's outputs leave it where its inputs are split; None elsewhere.
        summed: whether ranks that have all magnitudes see different tokens.
    """

    def __init__(
        self,
        vector: nn.Module,
        group: Group | None,
        *,
        leave: Callable[[Tensor], Tensor] | None,
        summed: bool,
    ) -> None:
        self._vector, self._group, self._leave, self._summed = vector, group, leave, summed

    def __call__(
        self,
        x: Tensor,
        *,
        lora_A: nn.Linear,  # PEFT's names
        lora_B: nn.Linear,
        scaling: float,
        base_layer: nn.Linear,
        base_result: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """What is added to the layer's output.

        Args:
            x: the input of the adapter, on which it has its dropout.
            lora_A: the adapter's matrix to the low rank.
            lora_B: its matrix from there.
            scaling: of what it adds.
            base_layer: the layer it stands beside.
            base_result: the layer's output; None if it is to be computed from `x`, as PEFT wants it
                with dropout.
        """
        norms = self._norms(lora_A, lora_B, scaling, base_layer, x.dtype)
        with local_weights(self._vector, summed=self._summed):
            vector: Any = self._vector.weight
            scale = vector / norms
        low = lora_B(lora_A(x))
        with local_weights(base_layer, summed=self._summed):
            if base_result is None:
                base_result = F.linear(x, base_layer.weight)
                base_result = self._leave(base_result) if self._leave else base_result
            elif base_layer.bias is not None:
                base_result = base_result - base_layer.bias
        added: Tensor = (scale - 1) * base_result + scale * low * scaling
        return added

    @torch.no_grad()
    def _norms(
        self, down: nn.Linear, up: nn.Linear, scaling: float, base: nn.Linear, dtype: torch.dtype
    ) -> Tensor:
        """[rows] norms of the adapted weight, through which no gradient goes (4.3 of the paper)."""
        with (
            local_weights(base, summed=False),
            local_weights(down, summed=False),
            local_weights(up, summed=False),
        ):
            adapted = base.weight.to(dtype) + scaling * (up.weight @ down.weight).to(dtype)
        squares = adapted.float().square().sum(dim=1)
        if self._group is not None:
            dist.all_reduce(squares, group=self._group)
        return squares.sqrt().to(dtype)
