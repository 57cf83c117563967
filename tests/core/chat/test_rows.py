"""Row formats to messages, and hostile rows refused with words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.core.chat import RowError, to_messages, to_tools

HI = {"role": "user", "content": "Hi"}
YO = {"role": "assistant", "content": "Yo"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [HI, YO]},
        {"prompt": "Hi", "completion": "Yo"},
        {"prompt": [HI], "completion": [YO]},
        {"prompt": [HI], "completion": "Yo"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]},
        {"conversations": [HI, YO]},
        {"messages": [HI | {"name": None}, YO | {"tool_calls": None}], "conversations": None},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, YO]},
        {"messages": [{"role": "user", "content": [{"text": "H"}, "i"]}, YO], "id": 7},
    ],
)
def test_every_known_format_gives_the_same_messages(row: dict[str, Any]) -> None:
    assert to_messages(row) == [HI, YO]


def test_sharegpt_speakers_become_roles() -> None:
    row = {
        "system": "Be kind.",
        "conversations": [
            {"from": "human", "value": "Weather?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"in": "Paris"}}'},
            {"from": "observation", "value": "sunny"},
            {"from": "gpt", "value": "Sunny."},
        ],
    }
    call = {"type": "function", "function": {"name": "weather", "arguments": {"in": "Paris"}}}
    assert to_messages(row) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "Sunny."},
    ]


def test_the_answers_of_a_prompt_are_context() -> None:
    messages = to_messages({"prompt": [HI, YO, HI], "completion": [YO]})
    assert [message.get("weight", 1) for message in messages] == [1, 0, 1, 1]


def test_arguments_written_as_text_become_an_object() -> None:
    function = {"name": "add", "arguments": '{"a": 1}'}
    call = {"id": "1", "type": "function", "function": function}
    (message,) = to_messages({"messages": [{"role": "assistant", "tool_calls": [call]}]})
    assert message["tool_calls"] == [call | {"function": {"name": "add", "arguments": {"a": 1}}}]


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_is_known_under_its_usual_names(key: str) -> None:
    (message,) = to_messages({"messages": [YO | {key: "hm"}]})
    assert message["reasoning_content"] == "hm"


@pytest.mark.parametrize("tools", [[{"name": "add"}], '[{"name": "add"}]'])
def test_tools_are_read_as_a_list_or_its_text(tools: Any) -> None:
    assert to_tools({"tools": tools}) == [{"name": "add"}]


@pytest.mark.parametrize("tools", [None, [], "", "[]"])
def test_no_tools_are_none(tools: Any) -> None:
    assert to_tools({"tools": tools}) is None


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "No chat format"),
        ({"message": [HI]}, "Did you mean 'messages'"),
        ({"text": "Hi"}, "'text'"),
        ({"prompt": "Hi"}, "No chat format"),
        ({"input_ids": [1], "loss_mask": [0]}, "already tokenized"),
        ({"messages": []}, "is empty"),
        ({"messages": "Hi"}, "is text, not a list"),
        ({"messages": {"role": "user"}}, "is an object"),
        ({"messages": ["Hi"]}, "messages[0] is text"),
        ({"messages": [{"content": "Hi"}]}, "has no 'role'"),
        ({"messages": [{"role": "asistant", "content": ""}]}, "Did you mean 'assistant'"),
        ({"messages": [{"role": ["user"], "content": ""}]}, "has the role"),
        ({"messages": [{"role": "user"}]}, "no 'content'"),
        ({"messages": [{"role": "user", "content": 5}]}, "a number, not text"),
        ({"messages": [HI | {"content": [{"type": "image_url"}]}]}, "part of type 'image_url'"),
        (
            {"messages": [HI | {"content": [{"type": "image", "text": "a cat"}]}]},
            "part of type 'image'",
        ),
        ({"messages": [HI], "images": ["cat.png"]}, "The row carries 'images'"),
        ({"messages": [HI | {"audio": {"id": "a1"}}]}, "messages[0] carries 'audio'"),
        (
            {"conversations": [{"from": "human", "value": "<image>"}], "image": "cat.png"},
            "The row carries 'image'",
        ),
        ({"messages": [YO | {"weight": 0.5}]}, "weight is 0.5"),
        ({"messages": [YO | {"tool_calls": "x"}]}, "not a list"),
        ({"messages": [YO | {"tool_calls": [{"function": {}}]}]}, "names no function"),
        ({"conversations": [{"from": "humn", "value": ""}]}, "Did you mean 'human'"),
        ({"conversations": [{"from": "function_call", "value": "go"}]}, "not a tool call"),
        ({"conversations": [{"from": "human"}]}, "no 'content'"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(row: dict[str, Any], said: str) -> None:
    with pytest.raises(RowError) as caught:
        to_messages(row)
    assert said in caught.value.message + caught.value.fix


def test_tools_that_are_no_schemas_are_refused() -> None:
    with pytest.raises(RowError, match="'tools' is not a list"):
        to_tools({"tools": "weather"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["messages", "conversations", "prompt", "completion", "tools", "system", "input_ids"]
)
FIELDS = st.sampled_from(
    ["role", "content", "from", "value", "tool_calls", "thinking", "weight", "function", "text"]
)
VALUES = JSON | st.sampled_from(["user", "assistant", "tool", "gpt", "human", "function_call"])
MESSAGE = JSON | st.dictionaries(FIELDS, VALUES, max_size=5)
ROW = JSON | st.dictionaries(KEYS, JSON | st.lists(MESSAGE, max_size=4), max_size=4)


@settings(max_examples=300, deadline=None)
@given(ROW)
def test_any_json_is_read_or_refused_as_a_row(row: Any) -> None:
    try:
        messages = to_messages(row)
        tools = to_tools(row)
    except RowError as error:
        assert error.message
        return
    assert messages
    assert all(isinstance(message.get("content", ""), str) for message in messages)
    assert tools is None or isinstance(tools, list)
