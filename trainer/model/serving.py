"""Which adapters vLLM serves beside their base, and which have to be merged into it first."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.schema.adapter import LoraConfig

# https://github.com/vllm-project/vllm/blob/v0.26.0/vllm/lora/peft_helper.py and config/lora.py
_MOST = 512


def not_served(config: LoraConfig) -> Iterator[str]:
    """What of an adapter's settings keeps vLLM from loading it, by the key of the config."""
    if config.use_dora:
        yield "peft.use_dora"
    if config.modules_to_save:
        yield "peft.modules_to_save"
    if config.dim > _MOST:
        yield f"peft.dim over {_MOST}"
