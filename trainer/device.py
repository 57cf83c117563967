"""Where a process computes, and in which number formats."""

from __future__ import annotations

import os

import torch

from ..core.errors import UsageError
from ..core.schema import TrainConfig
from .lines import say

STRING_TO_DTYPE = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
"""The formats of `model.torch_dtype`."""


def device_of(rank: int) -> torch.device:
    """The device that a process computes on: the GPU of its number on its machine, else the CPU.

    Args:
        rank: the process, whose number `LOCAL_RANK` tells where torchrun started it.

    Raises:
        UsageError: a machine has fewer GPUs than processes.
    """
    if torch.cuda.is_available():
        number, there = int(os.environ.get("LOCAL_RANK", rank)), torch.cuda.device_count()
        # All on the machine find it, also the first, which speaks for them.
        last = max(number, int(os.environ.get("LOCAL_WORLD_SIZE", "0")) - 1)
        if last >= there:
            raise UsageError(
                f"Process {last} of this machine is to compute on GPU {last}, and "
                f"{there} {'is' if there == 1 else 'are'} to be seen.",
                fix=f"Start {there} on it (torchrun --nproc-per-node {there}), or let it see more "
                "GPUs (CUDA_VISIBLE_DEVICES).",
            )
        device = torch.device("cuda", number)
        # Before the processes meet: NCCL takes the current one.
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")


def formats_for(
    config: TrainConfig, device: torch.device
) -> tuple[torch.dtype, torch.dtype | None]:
    """The format of the model's weights, and that of products where it is another one.

    What is trained is best kept in float32: an update is small beside its weight, and bfloat16 has
    eight bits for both.

    Returns:
        The weights' format, and the format of products (autocast), or None for the weights'.
    """
    name, gpu = config.model.torch_dtype, device.type == "cuda"
    if name == "auto":
        good = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        if not good:
            return torch.float32, None
        frozen = config.peft is not None
        return torch.bfloat16 if frozen else torch.float32, torch.bfloat16
    dtype = STRING_TO_DTYPE[name]
    if config.peft is None and dtype != torch.float32:
        say(
            f"tunedeck: warning: model.torch_dtype: weights that are trained in {name} lose small "
            "updates; `auto` keeps them in float32 and multiplies in bfloat16 on a GPU, for twice "
            "the memory"
        )
    adapts = gpu and config.peft is not None and dtype != torch.float32
    return dtype, dtype if adapts else None
