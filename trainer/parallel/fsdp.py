"""Sharding weights, gradients and optimizer state over the data parallel ranks (FSDP2, HSDP).

https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from transformers import PreTrainedModel

from ..model.quantize import is_quantized
from .context import DistributedContext


def blocks(model: PreTrainedModel) -> Iterator[nn.Module]:
    """The layers that a model repeats: those that transformers never splits over devices."""
    names = set(model._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in names:
            yield module


def shard(
    model: PreTrainedModel,
    context: DistributedContext,
    experts: Sequence[nn.Module] = (),
    *,
    dtype: torch.dtype,
    cpu_offload: bool,
) -> None:
    """Shard each block of a model, and what remains of the model, in place.

    Weights are gathered and computed with in `dtype`; gradients are summed, never averaged, in
    float32: the loss is already divided by the tokens of all ranks. Of a quantized model the
    adapters alone are sharded: blocks of four or eight bits cannot be.

    Args:
        model: its root must be the module that is called.
        context: weights are sharded over `shard`, and copied over `dp_replicate`.
        experts: modules inside whose weights are spread over `ep` already.
        dtype: format of the matrix products.
        cpu_offload: shards lie in main memory while they are not used.
    """
    assert context.device_mesh is not None
    names = ("dp_replicate", "shard") if context.sizes.dp_replicate > 1 else ("shard",)
    options: dict[str, Any] = {
        "mp_policy": MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32),
        "offload_policy": CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
        if cpu_offload
        else OffloadPolicy(),
    }
    if is_quantized(model):
        frozen = (weight for weight in model.parameters() if not weight.requires_grad)
        options["ignored_params"] = set(frozen)
    if context.expert_mesh is not None:
        for module in experts:
            fully_shard(module, mesh=context.expert_mesh[names], **options)
    if not model.all_tied_weights_keys:
        # Gathered for the first layer alone, and not kept beside the output head.
        fully_shard(model.get_input_embeddings(), mesh=context.device_mesh[names], **options)
    for block in blocks(model):
        fully_shard(block, mesh=context.device_mesh[names], **options)
    fully_shard(model, mesh=context.device_mesh[names], **options)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            # gloo knows no scaled sums.
            module.set_force_sum_reduction_for_comms(True)


def synchronize_gradients(model: nn.Module, wanted: bool) -> None:
    """Whether the next backward pass adds up the gradients of all ranks, or keeps them for later.

    Deferring it to the last micro-batch of a step saves communication and costs memory.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(wanted)


def let_go(model: nn.Module) -> None:
    """Leave of a model its shards alone, after a forward pass that no backward pass follows.

    What lies outside of the blocks stays gathered from one pass to the other. Until then it is no
    parameter that the optimizer knows, nor in the format that it is trained in.
    """
    if isinstance(model, FSDPModule):
        model.reshard()
