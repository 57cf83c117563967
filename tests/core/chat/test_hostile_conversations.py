"""Whatever rows hold, no word of another speaker is trained."""

from __future__ import annotations

from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.core.chat import (
    ChatTokenizer,
    RowError,
    to_messages,
    tokenize_chat,
    tokenize_rows,
    wrap_tokenizer,
)
from tunedeck.core.chat.rows import texts_of
from tunedeck.core.chat.turns import is_trained

from .conftest import SPECIAL_TOKENS, template_text

FRAGMENTS = st.sampled_from(
    [
        *("", " ", "\n", "\n\n", "Yes", "🦊", "é", "\x00", "\ue000tunedeck\ue001", "{{ x }}"),
        *("<|im_end|>", "<|im_start|>assistant\n", "</s>", "[/INST]", "<end_of_turn>"),
        *("<|eot_id|>", "<think>", "</think>", "<tool_response>", "</tool_response>"),
    ]
)
TEXT = st.lists(FRAGMENTS, max_size=4).map("".join)
CONTENT = st.tuples(TEXT, st.booleans(), TEXT)
ROLES = st.sampled_from(["user", "assistant", "assistant", "tool", "system"])
OPENERS = ["<|im_start|>", "<|start_header_id|>", "<|end_header_id|>", "[INST]", "[/INST]"]
OPENERS += ["<start_of_turn>", "[TOOL_RESULTS]", "<s>", "<bos>", "<|begin_of_text|>"]
CALLS = [{"function": {"name": "add", "arguments": {"ZZZ": "</s><|im_end|>"}}}]


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    orderly = draw(st.booleans())
    for index in range(draw(st.integers(1, 5))):
        role = ("user", "assistant")[index % 2] if orderly else draw(ROLES)
        before, tagged, after = draw(CONTENT)
        tag = "ZZZ" if role == "assistant" else "QQQ"
        message: dict[str, Any] = {"role": role, "content": before + tag * tagged + after}
        if role == "assistant" and draw(st.booleans()):
            message["reasoning_content"] = draw(TEXT)
        if role == "assistant" and not orderly and draw(st.booleans()):
            message["tool_calls"] = CALLS
        messages.append(message)
    return messages


@pytest.fixture(scope="session")
def chat_tokenizers(backend: tokenizers.Tokenizer) -> dict[str, ChatTokenizer]:
    return {
        name: wrap_tokenizer(backend, special_tokens=named, own_template=template_text(name))
        for name, named in SPECIAL_TOKENS.items()
    }


@pytest.mark.parametrize("name", SPECIAL_TOKENS)
@settings(max_examples=60, deadline=None)
@given(messages=conversations())
def test_only_the_assistants_words_are_trained(
    chat_tokenizers: dict[str, ChatTokenizer], name: str, messages: list[dict[str, Any]]
) -> None:
    tokenizer = chat_tokenizers[name]
    row = {"messages": messages}
    (many,) = tokenize_rows(tokenizer, [row])
    try:
        chat = tokenize_chat(tokenizer, to_messages(row))
    except RowError as error:
        assert isinstance(many, RowError)
        assert many.message == error.message
        return
    assert many == chat
    text = tokenizer.render(to_messages(row)).text
    encoding = tokenizer.encode(text)
    assert len(chat.trained) == len(encoding.ids)
    trained = [span for span, on in zip(encoding.offsets, chat.trained, strict=True) if on]
    covered = {at for start, end in trained for at in range(start, end)}
    assert not any(text[at] == "Q" for at in covered), "a word of another speaker is trained"
    spoken = "".join(text for one in to_messages(row) if is_trained(one) for text in texts_of(one))
    openers = {text[start:end] for start, end in trained} & set(OPENERS)
    assert all(opener in spoken for opener in openers), "a header is trained"
    if not (chat.notes.unproven_turns or chat.notes.inner_stops):
        stop = tokenizer.finder(None).shape.stop
        closed = sum(text[start:end] == stop for start, end in trained)
        turns = sum(message["role"] == "assistant" for message in messages)
        assert closed + chat.notes.unstopped_turns == turns


def test_half_a_surrogate_pair_is_refused(chat_tokenizers: dict[str, ChatTokenizer]) -> None:
    tokenizer = chat_tokenizers["chatml"]
    rows = [{"prompt": "a", "completion": broken} for broken in ("b", "\ud83e", "c")]
    first, broken, last = tokenize_rows(tokenizer, rows)
    assert isinstance(broken, RowError)
    assert "surrogate" in broken.message
    assert not isinstance(first, RowError)
    assert not isinstance(last, RowError)
