"""The optimizer over the parameters that are trained."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from ...core.schema.optimization import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """One optimizer over all trainable parameters of a model.

    Weights of two and more dimensions decay; norms, biases and other vectors do not, as in the
    trainers of transformers and TRL.

    Raises:
        ValueError: nothing in the model is trainable.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError("no parameter of the model is trainable")
    # One fused update takes weights of one mesh; experts may be on another.
    groups: dict[Any, dict[str, Any]] = {}
    for decays in (True, False):
        for parameter in trained:
            if (parameter.ndim >= 2) is decays:
                key = (decays, getattr(parameter, "device_mesh", None))
                decay = config.weight_decay if decays else 0.0
                group = groups.setdefault(key, {"params": [], "weight_decay": decay})
                group["params"].append(parameter)
    options: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
    if config.name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        small: Optimizer = AdamW8bit(list(groups.values()), **options)
        return small
    kind = AdamW if config.name == "adamw" else Adam
    return kind(list(groups.values()), **options, fused=True)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
