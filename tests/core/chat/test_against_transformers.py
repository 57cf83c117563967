"""Renderings, ids and marked masks are those of transformers' `apply_chat_template`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from tunedeck.core.chat import open_chat_tokenizer, to_messages, tokenize_chat, wrap_tokenizer

from .conftest import SPECIAL_TOKENS, TEMPLATES, template_text

transformers = pytest.importorskip("transformers")

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"é": "<b>"}}}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"in": "Zürich <b>"}}}
PLAIN = [
    {"role": "user", "content": "  What is two and three?\n"},
    {"role": "assistant", "content": "\nThe answer is 5. 🦊 "},
    {"role": "user", "content": "Yes?"},
    {"role": "assistant", "content": "Yes.", "reasoning_content": "\nHello.\n"},
]
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "plain": PLAIN,
    "open": PLAIN[:3],
    "system": [{"role": "system", "content": "Be kind."}, *PLAIN],
    "tools": [
        PLAIN[0],
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "tool", "content": "sunny"},
        PLAIN[1],
    ],
}
CASES = [
    (name, conversation)
    for name in SPECIAL_TOKENS
    for conversation in CONVERSATIONS
    if conversation != "tools" or name in ("qwen3", "mistral")
]


def reference(backend: tokenizers.Tokenizer, name: str) -> Any:
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=template_text(name),
        **SPECIAL_TOKENS[name],
    )


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize(("name", "conversation"), CASES)
def test_a_rendering_and_its_ids_equal_those_of_transformers(
    backend: tokenizers.Tokenizer, name: str, conversation: str, prompt: bool
) -> None:
    theirs = reference(backend, name)
    ours = wrap_tokenizer(
        theirs.backend_tokenizer,
        special_tokens=theirs.special_tokens_map,
        own_template=theirs.chat_template,
    )
    tools = TOOLS if conversation == "tools" else None
    messages = CONVERSATIONS[conversation]
    rendered = ours.render(
        to_messages({"messages": messages}), add_generation_prompt=prompt, tools=tools
    )
    options: dict[str, Any] = {"add_generation_prompt": prompt, "tools": tools}
    assert rendered.text == theirs.apply_chat_template(messages, tokenize=False, **options)
    expected = theirs.apply_chat_template(messages, return_dict=True, **options)
    assert ours.encode(rendered.text).ids == expected["input_ids"]


@pytest.mark.parametrize("conversation", ["plain", "open", "system"])
def test_a_mask_of_generation_marks_equals_that_of_transformers(
    backend: tokenizers.Tokenizer, conversation: str
) -> None:
    theirs = reference(backend, "marked")
    ours = wrap_tokenizer(
        backend, special_tokens=SPECIAL_TOKENS["marked"], own_template=theirs.chat_template
    )
    messages = CONVERSATIONS[conversation]
    expected = theirs.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    chat = tokenize_chat(ours, to_messages({"messages": messages}))
    assert chat.input_ids == expected["input_ids"]
    assert chat.trained == [bool(one) for one in expected["assistant_masks"]]


def test_template_helpers_behave_as_in_transformers(backend: tokenizers.Tokenizer) -> None:
    template = (
        "{%- set ns = namespace(n=0) %}{% for m in messages %}\n"
        "    {% if loop.index0 == 1 %}{% continue %}{% endif %}\n"
        "    {% set ns.n = ns.n + 1 %}\n"
        "  {{ m | tojson(indent=2) }} {{ '<é>' | tojson }} {{ dict(a=1) }} {{ ns.n }}\n"
        "    {% if loop.index0 == 2 %}{% break %}{% endif %}\n"
        "{% endfor %}\n{{ strftime_now('%Y') }} {{ documents }} {{ unknown }}\n"
    )
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template)
    ours = wrap_tokenizer(backend, special_tokens={}, own_template=template)
    expected = theirs.apply_chat_template(PLAIN, tokenize=False)
    assert ours.render(to_messages({"messages": PLAIN})).text == expected


def test_a_saved_folder_opens_with_the_same_ids_tokens_and_template(
    backend: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    reference(backend, "gemma").save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = open_chat_tokenizer(tmp_path)
    assert ours.chat_template == theirs.chat_template
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (
        theirs.bos_token_id,
        theirs.eos_token_id,
        theirs.pad_token_id,
    )
    text = theirs.apply_chat_template(PLAIN, tokenize=False)
    assert ours.encode(text).ids == theirs(text, add_special_tokens=False)["input_ids"]


def test_tool_use_templates_are_taken_for_rows_with_tools(
    backend: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    theirs = reference(backend, "chatml")
    theirs.chat_template = {"default": "plain{{ messages }}", "tool_use": "tools{{ messages }}"}
    theirs.save_pretrained(tmp_path)
    loaded, ours = (
        transformers.AutoTokenizer.from_pretrained(tmp_path),
        open_chat_tokenizer(tmp_path),
    )
    messages = to_messages({"messages": PLAIN[:1]})
    for tools in (None, TOOLS):
        expected = loaded.apply_chat_template(PLAIN[:1], tokenize=False, tools=tools)
        assert ours.render(messages, tools=tools).text == expected


def test_a_template_list_in_the_tokenizer_config_is_read(
    backend: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    reference(backend, "chatml").save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    named = [{"name": "default", "template": "one{{ messages }}"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named}))
    assert open_chat_tokenizer(tmp_path).chat_template == "one{{ messages }}"
    assert transformers.AutoTokenizer.from_pretrained(tmp_path).chat_template in (
        "one{{ messages }}",
        {"default": "one{{ messages }}"},
    )


def test_the_shipped_fixtures_are_all_tested() -> None:
    assert {file.stem for file in TEMPLATES.glob("*.jinja")} == set(SPECIAL_TOKENS)
