"""The optimizer over the parameters that are trained."""

from __future__ import annotations

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from ..core.schema.optimization import OptimizerConfig


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
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    kind = AdamW if config.name == "adamw" else Adam
    return kind(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=True,
    )


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate
