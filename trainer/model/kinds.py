"""What kind of model a run sets up, and which of transformers' loaders builds it.

The vision and reward paths are those of NeMo RL's `nemo_rl.models.automodel.setup`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
)

from ...core.errors import UsageError

if TYPE_CHECKING:
    from ...core.schema.model import ModelConfig


SCORE = "score"
"""What transformers calls the layer of a reward model that gives the score."""


class Kind(StrEnum):
    """What a model gives."""

    TEXT = "causal language model"
    """The next token of a text."""
    VISION = "vision language model"
    """The next token, for text and images."""
    REWARD = "reward model"
    """A score of the whole sequence."""


_LOADERS: dict[Kind, Any] = {
    Kind.TEXT: AutoModelForCausalLM,
    Kind.VISION: AutoModelForImageTextToText,
    Kind.REWARD: AutoModelForSequenceClassification,
}


def loader_of(kind: Kind) -> Any:
    """The class of transformers whose `from_pretrained` and `from_config` build such a model."""
    return _LOADERS[kind]


def kind_of(config: ModelConfig, architecture: PretrainedConfig) -> Kind:
    """Which kind a model is to be; a reward model has one score (`num_labels` 1) from here on."""
    if config.reward_model_cfg.enabled:
        architecture.num_labels = 1
        return Kind.REWARD
    return trained_kind(architecture)


def trained_kind(architecture: PretrainedConfig) -> Kind:
    """Which kind a model is that predicts tokens."""
    if type(architecture) in AutoModelForImageTextToText._model_mapping:
        return Kind.VISION
    return Kind.TEXT


def class_of(kind: Kind, architecture: PretrainedConfig, *, remote: bool) -> type[PreTrainedModel]:
    """The class that an architecture is built from.

    Args:
        kind: what it is to give.
        architecture: its config.
        remote: whether the code that it comes with is used.

    Raises:
        UsageError: there is no such model of this architecture.
    """
    loader = loader_of(kind)
    if remote and loader.__name__ in (getattr(architecture, "auto_map", None) or {}):
        return PreTrainedModel
    if type(architecture) in loader._model_mapping:
        found: type[PreTrainedModel] = loader._model_mapping[type(architecture)]
        return found
    raise UsageError(
        f"'{architecture.model_type}' is not a {kind}.",
        fix=f"Choose a model that transformers' {loader.__name__} loads.",
    )
