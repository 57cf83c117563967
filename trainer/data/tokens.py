"""The tokenizer of a run, and the chat tokenizer around it that renders and masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import tokenizers

from ...core.chat import ChatTokenizer, wrap_tokenizer
from ...core.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ...core.schema import TrainConfig
    from ...core.schema.model import TokenizerConfig


@dataclass(frozen=True)
class ChatFormat:
    """All that decides how a conversation becomes tokens, as plain values.

    Attributes:
        tokenizer: the contents of `tokenizer.json`.
        special_tokens: named tokens.
        template: the chat template, or several by name.
        template_arguments: further variables for it.
    """

    tokenizer: str
    special_tokens: Mapping[str, str]
    template: str | Mapping[str, str]
    template_arguments: Mapping[str, Any]

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, template_arguments: Mapping[str, Any]
    ) -> ChatFormat:
        """The format of a tokenizer with its template."""
        return cls(
            tokenizer.backend_tokenizer.to_str(),
            dict(tokenizer.special_tokens_map),
            tokenizer.chat_template,
            dict(template_arguments),
        )

    @cached_property
    def digest(self) -> str:
        """Stands for all of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def open(self) -> ChatTokenizer:
        """What renders conversations and marks the tokens that are trained."""
        return wrap_tokenizer(
            tokenizers.Tokenizer.from_str(self.tokenizer),
            special_tokens=self.special_tokens,
            own_template=self.template,
            chat_template_kwargs=self.template_arguments,
        )


def tokenizer_config(config: TrainConfig) -> TokenizerConfig:
    """The tokenizer's settings with its name decided: without one, it is the model's own.

    Raises:
        UsageError: the model is built from a table of sizes, which has no tokenizer.
    """
    if config.tokenizer.name is not None:
        return config.tokenizer
    name = config.model.pretrained_model_name_or_path or config.model.config
    if not isinstance(name, str):
        raise UsageError(
            "tokenizer.name is not set, and model.config has no tokenizer of its own.",
            fix="Set tokenizer.name to a folder or hub id.",
        )
    revision = config.tokenizer.revision or config.model.revision
    return config.tokenizer.model_copy(update={"name": name, "revision": revision})
