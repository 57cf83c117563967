"""A small byte-level tokenizer that has the special tokens of the real templates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from tunedeck.core.chat import ChatTokenizer, TokenizedChat, wrap_tokenizer

TEMPLATES = Path(__file__).parent / "templates"

SPECIAL_TOKENS = {
    "chatml": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "marked": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "qwen3": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "mistral": {"bos_token": "<s>", "eos_token": "</s>"},
    "gemma": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
}
"""The named tokens of each template's tokenizer; three have a pad token of their own."""

SPECIALS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    *("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"),
]

CORPUS = [
    "system user assistant tool model think tool_call tool_response name arguments",
    "What is the weather in Paris today? The weather in Paris is sunny, 21 degrees.",
    "You are a helpful assistant. Answer in one word. Yes. No. Hello there, how are you?",
    "First I add two and three. That makes five. The answer is 5.",
]


@pytest.fixture(scope="session")
def backend() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


OpenTokenizer = Callable[..., ChatTokenizer]


@pytest.fixture
def chat_tokenizer(backend: tokenizers.Tokenizer) -> OpenTokenizer:
    """Builds the chat tokenizer of one of the templates, or of a template's text."""

    def build(name: str = "chatml", template: str | None = None, **kwargs: Any) -> ChatTokenizer:
        return wrap_tokenizer(
            backend,
            special_tokens=SPECIAL_TOKENS[name],
            own_template=template or template_text(name),
            chat_template_kwargs=kwargs,
        )

    return build


def template_text(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text()


def shown(tokenizer: ChatTokenizer, chat: TokenizedChat, text: str) -> str:
    """The text with `⟦ ⟧` around what is trained, token by token."""
    encoding = tokenizer.encode(text)
    assert encoding.ids[: len(chat.input_ids)] == chat.input_ids
    out, cursor, inside = "", 0, False
    for trained, (_, end) in zip(chat.trained, encoding.offsets, strict=False):
        if trained != inside:
            out += "⟦" if trained else "⟧"
            inside = trained
        out += text[cursor:end]
        cursor = max(cursor, end)
    return out + ("⟧" if inside else "")
