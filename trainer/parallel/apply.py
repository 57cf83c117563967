"""All that is put around a model from outside, in one fixed order."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ...core.schema.parallel import DistributedConfig
from ..model.activation_checkpointing import checkpoint_activations
from .context import DistributedContext
from .experts import spread_experts
from .fsdp import shard
from .tensor import split_layers


def parallelize(
    model: PreTrainedModel,
    context: DistributedContext,
    config: DistributedConfig,
    dtype: torch.dtype,
) -> None:
    """Lay a model out over the ranks, in place. The order is that of torchtitan.

    Weights are split within layers first, what is left of them is sharded last; activation
    checkpointing comes between, so that a block that runs again gathers its weights again. Context
    parallelism changes no weight: it is in the attention and in the batches (`sequences.py`).

    Args:
        model: with its adapters; without values where there are several ranks.
        context: the ranks.
        config: which kinds of parallelism.
        dtype: format of the matrix products.
    """
    sequence, experts = config.sequence_parallel, []
    if context.ep_size > 1 or context.tp_size > 1:
        experts = spread_experts(model, context, same_tokens=not sequence)
    if context.tp_size > 1:
        split_layers(model, context, experts, sequence=sequence)
    if scope := config.activation_checkpointing:
        checkpoint_activations(model, scope)
    if context.device_mesh is not None:
        shard(model, context, experts, dtype=dtype, cpu_offload=config.cpu_offload)
