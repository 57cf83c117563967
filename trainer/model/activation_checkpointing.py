"""Recomputing activations in the backward pass instead of keeping them."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any, Literal

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    create_selective_checkpoint_contexts,
)
from transformers import PreTrainedModel

from ...core.errors import UsageError

_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}
"""Operations that are dear to compute: `selective` keeps their results and recomputes the rest."""

with suppress(ImportError):  # before torch 2.10 there is none
    import torch.nn.attention.varlen

    _KEPT.add(torch.ops.torch_attn._varlen_attn.default)


def checkpoint_activations(model: PreTrainedModel, scope: Literal[True, "selective"]) -> None:
    """Let each block keep its input alone (True), or also the results of its matrix products.

    Raises:
        UsageError: the model's blocks cannot be run twice.
    """
    options: dict[str, Any] = {"use_reentrant": False}
    if scope == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    try:
        model.activation_checkpointing_enable(options)
    except ValueError as error:
        raise UsageError(
            f"{type(model).__name__} does not support activation checkpointing.",
            fix="Set distributed.activation_checkpointing=false.",
        ) from error


def _policy(
    _context: SelectiveCheckpointContext, operation: Any, *_: Any, **__: Any
) -> CheckpointPolicy:
    kept = operation in _KEPT
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
