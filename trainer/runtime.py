"""What the setup functions hand to each other and to the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from ..core.schema.model_facts import model_facts
from .model.kinds import Kind

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

    from .update.schedule import Schedule


class RuntimeConfig(NamedTuple):
    """What the config comes to on this machine; NeMo RL's fields, and what this trainer adds.

    Attributes:
        model_config: the architecture.
        model_class: the class it is built from.
        dtype: format of the model's own weights; adapters are float32.
        attn_impl: the attention kernel.
        device: where this process computes.
        autocast: format of matrix products where it is not that of the weights, some of which are
            float32; None leaves it to the weights.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        kind: what the model gives: tokens, tokens from images too, or a score.
        own_code: whether the implementation that the model comes with is used.
        hf_config_overrides: what differs in `model_config` from the model's own `config.json`.
        allow_flash_attn_args: whether the model hands the bounds of rows in one line on to its
            layers, under the names of flash attention's arguments.
        enable_seq_packing: whether rows share a sequence.
        cpu_offload: whether weights and optimizer state lie in main memory between uses.
        offload_optimizer_for_logprob, is_generation_colocated, sampling_params: of reinforcement
            learning; nothing generates beside this trainer.
    """

    model_config: PretrainedConfig
    model_class: type[nn.Module]
    dtype: torch.dtype
    attn_impl: str
    device: torch.device
    autocast: torch.dtype | None
    max_grad_norm: float | None
    kind: Kind = Kind.TEXT
    own_code: bool = False
    hf_config_overrides: Mapping[str, Any] = MappingProxyType({})
    allow_flash_attn_args: bool = False
    enable_seq_packing: bool = False
    cpu_offload: bool = False
    offload_optimizer_for_logprob: bool = False
    is_generation_colocated: bool | None = None
    sampling_params: None = None

    @property
    def is_reward_model(self) -> bool:
        """Whether the model gives a score."""
        return self.kind is Kind.REWARD


class ModelAndOptimizerState(NamedTuple):
    """A model that is ready to train; NeMo RL's fields, and PEFT's wrapper.

    Attributes:
        model: the causal language model, adapters inside, parallelism applied.
        adapter: PEFT's wrapper of the same model, which saves the adapter; None in full training.
        optimizer: over the trainable parameters; None where it was not asked for.
        scheduler: the learning rate of each step; None without an optimizer.
        runtime: what the model was set up by.
    """

    model: PreTrainedModel
    adapter: PeftModel | None
    optimizer: Optimizer | None
    scheduler: Schedule | None
    runtime: RuntimeConfig

    @property
    def is_hf_model(self) -> bool:
        """Whether transformers' implementation is used, and not one that the model comes with."""
        return not self.runtime.own_code

    @property
    def is_moe_model(self) -> bool:
        """Whether layers have experts that tokens are dealt out to."""
        return bool(model_facts(self.model_config.to_dict()).experts)

    @property
    def is_reward_model(self) -> bool:
        """Whether the model gives a score."""
        return self.runtime.is_reward_model

    @property
    def model_class(self) -> type[nn.Module]:
        """The class the model was built from, before parallelism changed it."""
        return self.runtime.model_class

    @property
    def model_config(self) -> PretrainedConfig:
        """The architecture."""
        return self.runtime.model_config

    @property
    def peft_config(self) -> PeftConfig | None:
        """The adapter's settings, as `adapter_config.json` has them; None in full training."""
        return None if self.adapter is None else self.adapter.peft_config["default"]

    @property
    def autocast_enabled(self) -> bool:
        """Whether products have another format than the weights."""
        return self.runtime.autocast is not None
