"""What is trained, written by hand for five real templates."""

from __future__ import annotations

from typing import Any

import pytest

from tunedeck.core.chat import ChatTokenizer, RowError, to_messages, tokenize_chat

from .conftest import OpenTokenizer, shown

QUESTION = {"role": "user", "content": "What is two and three?"}
ANSWER = {"role": "assistant", "content": "The answer is 5."}
AGAIN = {"role": "user", "content": "Yes?"}
YES = {"role": "assistant", "content": "Yes."}
SYSTEM = {"role": "system", "content": "You are helpful."}
THOUGHT = {**ANSWER, "reasoning_content": "First I add."}
CALL = {
    "role": "assistant",
    "tool_calls": [
        {"type": "function", "function": {"name": "weather", "arguments": {"in": "Paris"}}}
    ],
}
RESULT = {"role": "tool", "content": "sunny"}


def trained_text(tokenizer: ChatTokenizer, *messages: dict[str, Any], **options: Any) -> str:
    read = to_messages({"messages": list(messages)})
    chat = tokenize_chat(tokenizer, read, **options)
    return shown(tokenizer, chat, tokenizer.render(read, tools=options.get("tools")).text)


def test_chatml_trains_every_answer_with_its_stop_token(chat_tokenizer: OpenTokenizer) -> None:
    assert trained_text(chat_tokenizer("chatml"), SYSTEM, QUESTION, ANSWER, AGAIN, YES) == (
        "<|im_start|>system\nYou are helpful.<|im_end|>\n"
        "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
        "<|im_start|>assistant\n⟦The answer is 5.<|im_end|>⟧\n"
        "<|im_start|>user\nYes?<|im_end|>\n"
        "<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n"
    )


def test_llama_3_trains_every_answer_with_its_stop_token(chat_tokenizer: OpenTokenizer) -> None:
    assert trained_text(chat_tokenizer("llama3"), SYSTEM, QUESTION, ANSWER, AGAIN, YES) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are helpful.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhat is two and three?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦The answer is 5.<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nYes?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Yes.<|eot_id|>⟧"
    )


def test_gemma_trains_model_turns_and_moves_the_system_prompt(
    chat_tokenizer: OpenTokenizer,
) -> None:
    assert trained_text(chat_tokenizer("gemma"), SYSTEM, QUESTION, ANSWER, AGAIN, YES) == (
        "<bos><start_of_turn>user\nYou are helpful.\n\nWhat is two and three?<end_of_turn>\n"
        "<start_of_turn>model\n⟦The answer is 5.<end_of_turn>⟧\n"
        "<start_of_turn>user\nYes?<end_of_turn>\n"
        "<start_of_turn>model\n⟦Yes.<end_of_turn>⟧\n"
    )


def test_mistral_has_no_header_and_trains_the_end_of_text(chat_tokenizer: OpenTokenizer) -> None:
    assert trained_text(chat_tokenizer("mistral"), QUESTION, ANSWER, AGAIN, YES) == (
        "<s>[INST] What is two and three?[/INST]⟦ The answer is 5.</s>⟧"
        "[INST] Yes?[/INST]⟦ Yes.</s>⟧"
    )


def test_mistral_moves_the_system_prompt_and_both_answers_are_still_proven(
    chat_tokenizer: OpenTokenizer,
) -> None:
    assert trained_text(chat_tokenizer("mistral"), SYSTEM, QUESTION, ANSWER, AGAIN, YES) == (
        "<s>[INST] What is two and three?[/INST]⟦ The answer is 5.</s>⟧"
        "[INST] You are helpful.\n\nYes?[/INST]⟦ Yes.</s>⟧"
    )


def test_mistral_tool_calls_are_trained_and_results_are_not(chat_tokenizer: OpenTokenizer) -> None:
    tools = [{"name": "weather"}]
    assert trained_text(chat_tokenizer("mistral"), QUESTION, CALL, RESULT, ANSWER, tools=tools) == (
        '<s>[AVAILABLE_TOOLS] [{"name": "weather"}][/AVAILABLE_TOOLS]'
        "[INST] What is two and three?[/INST]"
        '⟦[TOOL_CALLS] [{"name": "weather", "arguments": {"in": "Paris"}}]</s>⟧'
        '[TOOL_RESULTS] {"content": "sunny"}[/TOOL_RESULTS]⟦ The answer is 5.</s>⟧'
    )


def test_qwen_3_trains_the_thinking_of_the_last_turn(chat_tokenizer: OpenTokenizer) -> None:
    assert trained_text(chat_tokenizer("qwen3"), SYSTEM, QUESTION, THOUGHT) == (
        "<|im_start|>system\nYou are helpful.<|im_end|>\n"
        "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
        "<|im_start|>assistant\n"
        "⟦<think>\nFirst I add.\n</think>\n\nThe answer is 5.<|im_end|>⟧\n"
    )


def test_qwen_3_drops_earlier_thinking_and_the_answer_is_still_proven(
    chat_tokenizer: OpenTokenizer,
) -> None:
    tokenizer = chat_tokenizer("qwen3")
    row = [QUESTION, THOUGHT, AGAIN, {**YES, "reasoning_content": "Hello."}]
    assert trained_text(tokenizer, *row) == (
        "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
        "<|im_start|>assistant\n⟦The answer is 5.<|im_end|>⟧\n"
        "<|im_start|>user\nYes?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\nHello.\n</think>\n\nYes.<|im_end|>⟧\n"
    )
    chat = tokenize_chat(tokenizer, to_messages({"messages": row}))
    assert chat.notes.rewritten_turns == 1
    assert chat.notes.unproven_turns == 0


def test_qwen_3_thinking_written_into_the_content_is_handled_alike(
    chat_tokenizer: OpenTokenizer,
) -> None:
    inline = {"role": "assistant", "content": "<think>\nFirst I add.\n</think>\n\nYes."}
    assert trained_text(chat_tokenizer("qwen3"), QUESTION, inline, AGAIN, inline) == (
        "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
        "<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n"
        "<|im_start|>user\nYes?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\nFirst I add.\n</think>\n\nYes.<|im_end|>⟧\n"
    )


def test_qwen_3_trains_calls_and_answer_around_a_tool_turn(chat_tokenizer: OpenTokenizer) -> None:
    assert trained_text(chat_tokenizer("qwen3"), QUESTION, CALL, RESULT, RESULT, ANSWER) == (
        "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
        "<|im_start|>assistant\n"
        '⟦<tool_call>\n{"name": "weather", "arguments": {"in": "Paris"}}\n</tool_call><|im_end|>⟧\n'
        "<|im_start|>user\n<tool_response>\nsunny\n</tool_response>"
        "\n<tool_response>\nsunny\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n\n</think>\n\nThe answer is 5.<|im_end|>⟧\n"
    )


def test_qwen_3_without_thinking_leaves_the_empty_thought_to_the_header(
    chat_tokenizer: OpenTokenizer,
) -> None:
    tokenizer = chat_tokenizer("qwen3", enable_thinking=False)
    assert trained_text(tokenizer, QUESTION, ANSWER, AGAIN, YES) == (
        "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
        "<|im_start|>assistant\n⟦The answer is 5.<|im_end|>⟧\n"
        "<|im_start|>user\nYes?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦Yes.<|im_end|>⟧\n"
    )


def test_generation_marks_say_what_is_trained(chat_tokenizer: OpenTokenizer) -> None:
    assert trained_text(chat_tokenizer("marked"), QUESTION, ANSWER, AGAIN, YES) == (
        "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
        "<|im_start|>assistant\n⟦The answer is 5.<|im_end|>⟧\n"
        "<|im_start|>user\nYes?<|im_end|>\n"
        "<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n"
    )


def test_a_stop_token_left_out_of_the_marks_is_trained_all_the_same(
    chat_tokenizer: OpenTokenizer,
) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    )
    tokenizer = chat_tokenizer("chatml", template)
    assert trained_text(tokenizer, QUESTION, ANSWER).endswith("⟦The answer is 5.<|im_end|>⟧\n")


def test_marks_inside_a_macro_are_found_where_they_are(chat_tokenizer: OpenTokenizer) -> None:
    template = (
        "{% macro turn(m) %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endmacro %}"
        "{% for m in messages %}{{ turn(m) }}{% endfor %}"
    )
    tokenizer = chat_tokenizer("chatml", template)
    assert trained_text(tokenizer, QUESTION, ANSWER, AGAIN, YES).count("⟦") == 2
    assert trained_text(tokenizer, QUESTION, ANSWER).endswith("⟦The answer is 5.<|im_end|>⟧\n")


@pytest.mark.parametrize("name", ["chatml", "marked"])
def test_a_message_of_weight_0_is_context(chat_tokenizer: OpenTokenizer, name: str) -> None:
    context = {**ANSWER, "weight": 0}
    assert trained_text(chat_tokenizer(name), QUESTION, context, AGAIN, YES) == (
        "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
        "<|im_start|>assistant\nThe answer is 5.<|im_end|>\n"
        "<|im_start|>user\nYes?<|im_end|>\n"
        "<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n"
    )


def test_the_stop_token_is_trained_where_it_is_the_pad_token_too(
    chat_tokenizer: OpenTokenizer,
) -> None:
    tokenizer = chat_tokenizer("llama3")
    assert tokenizer.pad_id == tokenizer.eos_id
    chat = tokenize_chat(tokenizer, to_messages({"messages": [QUESTION, ANSWER]}))
    assert (chat.input_ids[-1], chat.trained[-1]) == (tokenizer.pad_id, True)


def test_a_template_without_a_generation_prompt_trains_no_header(
    chat_tokenizer: OpenTokenizer,
) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    tokenizer = chat_tokenizer("chatml", template)
    assert trained_text(tokenizer, QUESTION, ANSWER, AGAIN, YES) == (
        "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
        "<|im_start|>assistant\n⟦The answer is 5.<|im_end|>⟧\n"
        "<|im_start|>user\nYes?<|im_end|>\n"
        "<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n"
    )


def test_a_template_that_always_ends_with_a_header_trains_none(
    chat_tokenizer: OpenTokenizer,
) -> None:
    template = (
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content }}<|eot_id|>{% endfor %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    )
    tokenizer = chat_tokenizer("llama3", template)
    assert trained_text(tokenizer, QUESTION, ANSWER, AGAIN, YES) == (
        "<|start_header_id|>user<|end_header_id|>\n\nWhat is two and three?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦The answer is 5.<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nYes?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Yes.<|eot_id|>⟧"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{{ '\n' }}"
    "{% endfor %}"
)
ENDS_ONCE = CHATML + (
    "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}"
    "{% else %}<|endoftext|>{% endif %}"
)
PROMPTS_A_THOUGHT = CHATML + (
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{{ '\n' }}{% endif %}"
)
SYSTEM_IN_FIRST = (
    "{% for m in messages if m.role != 'system' %}"
    "{% if m.role == 'user' %}{{ bos_token }}[INST] "
    "{% if loop.first and messages[0].role == 'system' %}"
    "<<SYS>>{{ messages[0].content }}<</SYS>>{% endif %}{{ m.content.strip() }} [/INST]"
    "{% else %} {{ m.content.strip() }} {{ eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("name", "template", "rendered"),
    [
        (
            "chatml",
            ENDS_ONCE,
            "<|im_start|>system\nYou are helpful.<|im_end|>\n"
            "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
            "<|im_start|>assistant\n⟦The answer is 5.<|im_end|>⟧\n"
            "<|im_start|>user\nYes?<|im_end|>\n"
            "<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n<|endoftext|>",
        ),
        (
            "chatml",
            PROMPTS_A_THOUGHT,
            "<|im_start|>system\nYou are helpful.<|im_end|>\n"
            "<|im_start|>user\nWhat is two and three?<|im_end|>\n"
            "<|im_start|>assistant\n⟦The answer is 5.<|im_end|>⟧\n"
            "<|im_start|>user\nYes?<|im_end|>\n"
            "<|im_start|>assistant\n⟦Yes.<|im_end|>⟧\n",
        ),
        (
            "mistral",
            SYSTEM_IN_FIRST,
            "<s>[INST] <<SYS>>You are helpful.<</SYS>>What is two and three? [/INST]"
            "⟦ The answer is 5. </s>⟧<s>[INST] Yes? [/INST]⟦ Yes. </s>⟧",
        ),
    ],
)
def test_other_habits_of_templates_are_followed(
    chat_tokenizer: OpenTokenizer, name: str, template: str, rendered: str
) -> None:
    tokenizer = chat_tokenizer(name, template)
    assert trained_text(tokenizer, SYSTEM, QUESTION, ANSWER, AGAIN, YES) == rendered


def test_turns_that_cannot_be_proven_are_counted_and_not_trained(
    chat_tokenizer: OpenTokenizer,
) -> None:
    closed_once = "{% for m in messages %}{{ m.content }}\n{% endfor %}{{ eos_token }}"
    tokenizer = chat_tokenizer("mistral", closed_once)
    messages = to_messages({"messages": [QUESTION, ANSWER, AGAIN, YES]})
    chat = tokenize_chat(tokenizer, messages)
    assert chat.notes.unproven_turns == 1
    text = tokenizer.render(messages).text
    assert shown(tokenizer, chat, text) == (
        "What is two and three?\nThe answer is 5.\nYes?\n⟦Yes.\n</s>⟧"
    )


def test_a_row_of_which_nothing_can_be_proven_is_refused(chat_tokenizer: OpenTokenizer) -> None:
    numbered = (
        "{% for m in messages %}{{ messages|length }}{{ m.role }}{{ m.content }}{% endfor %}"
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(RowError, match="cannot be proven") as caught:
        trained_text(chat_tokenizer("mistral", numbered), QUESTION, ANSWER)
    assert "generation" in caught.value.fix


def test_a_row_without_an_assistant_is_refused(chat_tokenizer: OpenTokenizer) -> None:
    with pytest.raises(RowError, match="No assistant turn"):
        trained_text(chat_tokenizer("chatml"), QUESTION)


def test_a_conversation_that_the_template_rejects_is_refused_with_its_words(
    chat_tokenizer: OpenTokenizer,
) -> None:
    with pytest.raises(RowError, match="roles must alternate"):
        trained_text(chat_tokenizer("gemma"), QUESTION, AGAIN, ANSWER)


def test_mask_all_trains_every_token_that_is_predicted(chat_tokenizer: OpenTokenizer) -> None:
    chat = tokenize_chat(
        chat_tokenizer("chatml"), to_messages({"messages": [QUESTION]}), mask="all"
    )
    assert not chat.trained[0]
    assert all(chat.trained[1:])


def test_passthrough_joins_the_contents_and_trains_the_answer(
    chat_tokenizer: OpenTokenizer,
) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer = chat_tokenizer("chatml", template)
    chat = tokenize_chat(tokenizer, to_messages({"prompt": "Hello\n", "completion": "there\n"}))
    assert shown(tokenizer, chat, "Hello\nthere\n") == "Hello\n⟦there\n⟧"
    assert chat.notes.unstopped_turns == 1


def test_truncation_counts_the_trained_tokens_it_loses(chat_tokenizer: OpenTokenizer) -> None:
    tokenizer = chat_tokenizer("chatml")
    messages = to_messages({"messages": [QUESTION, ANSWER]})
    whole = tokenize_chat(tokenizer, messages)
    cut = tokenize_chat(tokenizer, messages, seq_length=whole.length - 3)
    assert cut.input_ids == whole.input_ids[:-3]
    assert cut.length == whole.length
    assert cut.dropped_trained == 2
    assert cut.supervised == whole.supervised - 2
    with pytest.raises(RowError, match="more than dataset"):
        tokenize_chat(tokenizer, messages, seq_length=whole.length - 3, truncation=False)
    fits = tokenize_chat(tokenizer, messages, seq_length=whole.length, truncation=False)
    assert fits == whole


def test_a_character_of_several_tokens_is_trained_whole(chat_tokenizer: OpenTokenizer) -> None:
    tokenizer = chat_tokenizer("chatml", "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    chat = tokenize_chat(tokenizer, to_messages({"prompt": "🦊", "completion": "🦊🦊"}))
    per_fox = len(tokenizer.encode("🦊").ids)
    assert per_fox > 1
    assert chat.trained == [False] * per_fox + [True] * per_fox * 2


def test_two_beginnings_of_text_are_noticed(chat_tokenizer: OpenTokenizer) -> None:
    twice = "{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer = chat_tokenizer("mistral", twice)
    messages = to_messages({"messages": [QUESTION, ANSWER]})
    assert tokenize_chat(tokenizer, messages).double_bos
    assert not tokenize_chat(chat_tokenizer("mistral"), messages).double_bos


def test_a_message_that_the_template_leaves_out_is_noticed(chat_tokenizer: OpenTokenizer) -> None:
    silent = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    messages = to_messages({"messages": [SYSTEM, QUESTION, ANSWER]})
    chat = tokenize_chat(chat_tokenizer("chatml", silent), messages)
    assert chat.notes.unrendered_messages == 1
    assert tokenize_chat(chat_tokenizer("gemma"), messages).notes.unrendered_messages == 0


def test_a_stop_token_in_a_message_is_noticed_and_does_not_end_the_turn(
    chat_tokenizer: OpenTokenizer,
) -> None:
    tokenizer = chat_tokenizer("chatml")
    answer = {"role": "assistant", "content": "Yes<|im_end|>\n<|im_start|>user\nNo"}
    assert trained_text(tokenizer, QUESTION, answer).endswith(
        "⟦Yes<|im_end|>\n<|im_start|>user\nNo<|im_end|>⟧\n"
    )
    chat = tokenize_chat(tokenizer, to_messages({"messages": [QUESTION, answer]}))
    assert chat.notes.inner_stops == 1
