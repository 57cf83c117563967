"""How conversations become tokens, as values that any process can be given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import tokenizers

from ...core.chat import ChatTokenizer, wrap_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
