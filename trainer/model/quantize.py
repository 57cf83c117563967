"""What needs the package bitsandbytes: a frozen base in four or eight bits, and AdamW in eight."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ...core.errors import UsageError
from ...core.schema import TrainConfig
from ...core.schema.mesh import optimizer_misfits

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

PACKAGE = "bitsandbytes"


def check_quantized(config: TrainConfig, processes: int) -> None:
    """Say before anything is loaded that what the config asks for cannot be had here.

    Raises:
        UsageError: the package is missing, or does not go with the rest of the config.
    """
    wanted = {
        "peft.quantization": config.peft is not None and config.peft.quantization is not None,
        "optimizer.name": config.optimizer.name == "adamw8bit",
    }
    for key, asked in wanted.items():
        if asked and find_spec(PACKAGE) is None:
            raise UsageError(
                f"{key} needs the package {PACKAGE}, which is not installed.",
                fix=f"Run `pip install {PACKAGE}`, or leave the key out.",
            )
    peft, gpu = config.peft, torch.cuda.is_available()
    if peft is not None and peft.quantization == "int8" and peft.use_dora and not gpu:
        # bitsandbytes there forgets the scales that PEFT asks for in each step.
        raise UsageError(
            "peft.use_dora does not go with peft.quantization=int8 on a CPU.",
            fix="Set peft.quantization=nf4, or peft.use_dora=false.",
        )
    for misfit in optimizer_misfits(config.optimizer, processes):
        raise UsageError(f"{misfit.key}: {misfit.message}", fix=misfit.fix)


def loading_options(
    quantization: str | None, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """What `from_pretrained` is told so that it quantizes each weight as it is read."""
    if quantization is None:
        return {}
    return {"quantization_config": _settings(quantization, dtype), "device_map": {"": device}}


def keep_for_training(model: nn.Module) -> None:
    """Leave weights as they are when a model answers between two steps of training.

    Where a CPU multiplies in bfloat16, bitsandbytes packs them anew for answers, in fewer bits
    and without a way back: no gradient passes them any more.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            vars(module)["support_avx512bf16_for_cpu"] = False


def is_quantized(model: nn.Module) -> bool:
    """Whether a model's weights were quantized when it was loaded."""
    return bool(getattr(model, "is_quantized", False))


def _settings(quantization: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    # As in the QLoRA paper (arXiv:2305.14314): normal-float blocks, whose scales are quantized too.
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
