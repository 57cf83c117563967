"""What the setup functions hand to each other and to the training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from .model.kinds import Kind
from .parallel.context import DistributedContext

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel

    from .update.schedule import Schedule


__all__ = ["DistributedContext", "ModelAndOptimizerState", "RuntimeConfig"]


class RuntimeConfig(NamedTuple):
    """What the config comes to on this machine.

    Attributes:
        model_config: the architecture.
        model_class: the class it is built from.
        dtype: format of the model's own weights; adapters are float32.
        attn_implementation: the attention kernel.
        device: where this process computes.
        autocast: format of matrix products where it is not that of the weights, some of which are
            float32; None leaves it to the weights.
        max_grad_norm: gradients are scaled down to this norm; None leaves them.
        kind: what the model gives: tokens, tokens from images too, or a score.
        own_code: whether the implementation that the model comes with is used.
    """

    model_config: PretrainedConfig
    model_class: type[nn.Module]
    dtype: torch.dtype
    attn_implementation: str
    device: torch.device
    autocast: torch.dtype | None
    max_grad_norm: float | None
    kind: Kind = Kind.TEXT
    own_code: bool = False


class ModelAndOptimizerState(NamedTuple):
    """A model that is ready to train.

    Attributes:
        model: the causal language model, adapters inside, parallelism applied.
        adapter: PEFT's wrapper of the same model, which saves the adapter; None in full training.
        optimizer: over the trainable parameters; None where it was not asked for.
        scheduler: the learning rate of each step; None without an optimizer.
    """

    model: PreTrainedModel
    adapter: PeftModel | None
    optimizer: Optimizer | None
    scheduler: Schedule | None
