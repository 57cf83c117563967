"""Cross entropy over the supervised tokens, from logits computed for these alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from ..data.batches import Batch
from ..model.attention import unread_mask
from ..model.last_block import Selection, give_selection
from ..parallel.sequences import SharedSequences
from .cross_entropy import token_losses


def document_arguments(batch: Batch, attn_implementation: str) -> dict[str, Any]:
    """What a model with an attention kernel is told beside the tokens where rows lie in one line.

    The names are those of transformers for flash attention over documents; attention that builds
    masks reads the boundaries from where the positions begin anew.
    """
    if batch.cu_seqlens is None:
        return {}
    return {
        "position_ids": batch.position_ids,
        "cu_seq_lens_q": batch.cu_seqlens,
        "cu_seq_lens_k": batch.cu_seqlens,
        "max_length_q": batch.longest,
        "max_length_k": batch.longest,
        **unread_mask(attn_implementation, batch.input_ids.device),
    }


class SupervisedLoss:
    """Sums the loss over the supervised tokens of a micro-batch.

    The output head is a third of the work of a small model and most of the memory of a large one,
    and only supervised positions need its logits. A hook on the head keeps the others from
    reaching it: the model itself is called as always, so whatever it does to logits afterwards
    (soft-capping, scaling) and whatever wraps it (adapters, sharding) stays in force.

    Args:
        model: a causal language model of transformers, possibly with adapters inside.
        autocast: format that matrix products are computed in; None leaves it to the weights.
        sources: of the data set, told apart where there are several.
        shared: the ranks that each compute a part of every sequence.

    Raises:
        ValueError: the model has no output head that can be found.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        autocast: torch.dtype | None = None,
        sources: int = 1,
        shared: SharedSequences | None = None,
    ) -> None:
        self._model, self._autocast = model, autocast
        self._shared, self._attention = shared, model.config._attn_implementation
        self._by_source = _BySource(sources)
        self._selection = Selection()
        if shared is None:
            give_selection(model, self._selection)
        head = model.get_output_embeddings()
        if head is None:
            raise ValueError(f"{type(model).__name__} names no output embeddings")
        head.register_forward_pre_hook(self._select)

    def __call__(self, batch: Batch, device: torch.device | None = None) -> Tensor:
        """The loss summed over the batch's targets, a scalar in float32.

        Rows are padded at the right, which no earlier position attends to, so no padding mask is
        built and the causal kernels apply.

        Args:
            batch: on the host, or where the model computes.
            device: where it is brought; None leaves it where it is.
        """
        if self._shared is not None:
            batch = self._shared.cut(batch)
        if device is not None:
            batch = batch.to(device)
        self._selection.begin(batch.positions)
        kind = batch.input_ids.device.type
        try:
            with torch.autocast(kind, self._autocast, enabled=self._autocast is not None):
                logits = self._model(
                    input_ids=batch.input_ids,
                    use_cache=False,
                    **document_arguments(batch, self._attention),
                ).logits
        finally:
            self._selection.begin(None)
        logits = logits.squeeze(0).float()
        if isinstance(logits, DTensor):
            losses = F.cross_entropy(logits, batch.targets, reduction="none")
        else:
            losses = token_losses(logits, batch.targets)
        if batch.sources is not None:
            self._by_source.add(losses.detach(), batch.sources)
        return losses.sum()

    def take_sources(self) -> Tensor | None:
        """What was lost on each source since the last call, and begin anew.

        Returns:
            [sources, 2] float64, sums of losses and counts of targets; None without several
            sources.
        """
        return self._by_source.take()

    def _select(self, _head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Hidden states [rows, length, width] to those of the supervised positions [1, n, width].

        Generation calls the head outside of a loss; it is left alone.
        """
        if self._selection.positions is None or self._selection.done:
            return None
        return (self._selection.take(inputs[0]), *inputs[1:])


class _BySource:
    """Adds up losses by the source of their target, on the device."""

    def __init__(self, sources: int) -> None:
        self._sources = sources
        self._sums: Tensor | None = None

    def add(self, losses: Tensor, sources: Tensor) -> None:
        if self._sums is None:
            self._sums = losses.new_zeros(self._sources, 2, dtype=torch.float64)
        values = torch.stack([losses.double(), torch.ones_like(losses, dtype=torch.float64)], dim=1)
        self._sums.index_add_(0, sources, values)

    def take(self) -> Tensor | None:
        sums, self._sums = self._sums, None
        return sums
