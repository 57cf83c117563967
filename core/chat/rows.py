"""From the row formats people have to one list of messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypeAlias, TypedDict

from ..errors import Place, UsageError
from ..text import did_you_mean

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
"""Who speaks."""

Row: TypeAlias = Mapping[str, Any]
"""One line of a data file, decoded."""


class Message(TypedDict, total=False):
    """One message as chat templates read it; any other key of the row's message is kept."""

    role: Required[Role]
    content: str
    """Absent where an assistant only calls tools."""
    reasoning_content: str
    """What the assistant thought before it answered."""
    tool_calls: list[dict[str, Any]]
    """OpenAI's form; `arguments` is an object, not its JSON text."""
    tool_call_id: str
    name: str
    weight: int
    """0: this assistant message is context and is not trained (OpenAI's fine-tuning format)."""


ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")

_SHAREGPT: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}
_REASONING = ("reasoning_content", "thinking", "reasoning")
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
_TEXT_ONLY = "Leave such rows out, or replace what they show by text."
_FORMATS = (
    'Give each row "messages": [{"role": "user", "content": …}, {"role": "assistant", …}], '
    'or "prompt" and "completion", or ShareGPT\'s "conversations".'
)


Refusal: TypeAlias = Literal[
    "malformed",
    "format",
    "media",
    "no_assistant",
    "template",
    "unproven",
    "too_long",
    "unsupervised",
]
"""Why a row is refused: not readable, in no chat format, more than text, without an assistant turn,
rejected by the template, its turns not to be proven, longer than allowed, or without a trained
token."""


class RowError(UsageError):
    """A row that cannot be trained on; `place` holds its file and row number once it is known.

    Args:
        message: what is wrong.
        refusal: the kind of it.
        place: the file, and the row as its line.
        fix: what to do.
    """

    def __init__(
        self,
        message: str,
        refusal: Refusal = "format",
        *,
        place: Place | None = None,
        fix: str = "",
    ) -> None:
        super().__init__(message, place=place, fix=fix)
        self.refusal: Refusal = refusal

    def at(self, file: str, number: int) -> RowError:
        """The same error with the row it was found in."""
        return RowError(self.message, self.refusal, place=Place(file, number), fix=self.fix)


def to_messages(row: Row) -> list[Message]:
    """Read a row in any of the known formats.

    `messages` (OpenAI's), ShareGPT's `conversations`, and `prompt` with `completion` (two strings,
    or two lists of messages; assistant messages of the prompt are context, weight 0) are known.
    Lists of text parts become one string; keys that are null are left out, as transformers does.

    Raises:
        RowError: no format is recognized, or a message is not what its format asks for.
    """
    if not isinstance(row, Mapping):
        raise RowError(f"The row is {_kind(row)}, not an object.", fix=_FORMATS)
    _refuse_media(row, "The row")
    for key in ("messages", "conversations"):
        if row.get(key) is not None:
            messages = _read_list(row[key], key)
            return _with_system(messages, row) if key == "conversations" else messages
    if row.get("prompt") is not None and row.get("completion") is not None:
        return _read_pair(row["prompt"], row["completion"])
    raise _unknown(row)


def to_tools(row: Row) -> list[dict[str, Any]] | None:
    """The tools that a row offers the model (`tools`: a list of JSON schemas, or its JSON text).

    Raises:
        RowError: `tools` is something else.
    """
    tools = row.get("tools")
    if isinstance(tools, str):
        tools = _parse(tools) if tools.strip() else None
    if tools is None or tools == []:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise RowError("'tools' is not a list of JSON schemas.")
    return tools


def texts_of(message: Message) -> tuple[str, ...]:
    """All that a message says: content, reasoning, and its tool calls as JSON."""
    texts = (message.get("content", ""), message.get("reasoning_content", ""))
    calls = message.get("tool_calls")
    return (*texts, json.dumps(calls, ensure_ascii=False)) if calls else texts


def _unknown(row: Row) -> RowError:
    packed = [key for key in ("input_ids", "loss_mask", "labels") if key in row]
    if packed:
        return RowError(
            f"The row is already tokenized (it has '{packed[0]}'); chat rows are wanted here.",
            fix="Point at the chat JSONL that it was made from; packing is done while training, "
            "by packed_sequence.packed_sequence_size.",
        )
    keys = ", ".join(f"'{key}'" for key in list(row)[:8]) or "none"
    known = ("messages", "conversations", "prompt", "completion")
    hints = (did_you_mean(str(key), known) for key in row if key not in known)
    hint = next((hint for hint in hints if hint), "")
    return RowError(
        f"No chat format is recognized in the row's keys ({keys}).",
        fix=f"{hint} {_FORMATS}".strip(),
    )


def _read_list(value: Any, key: str) -> list[Message]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise RowError(f"'{key}' is {_kind(value)}, not a list of messages.", fix=_FORMATS)
    if not value:
        raise RowError(f"'{key}' is empty.")
    return [_read_message(item, f"{key}[{index}]") for index, item in enumerate(value)]


def _read_pair(prompt: Any, completion: Any) -> list[Message]:
    def side(value: Any, key: str, role: Role) -> list[Message]:
        if isinstance(value, str):
            return [{"role": role, "content": value}]
        return _read_list(value, key)

    context = side(prompt, "prompt", "user")
    for message in context:
        if message["role"] == "assistant":
            message["weight"] = 0
    return context + side(completion, "completion", "assistant")


def _with_system(messages: list[Message], row: Row) -> list[Message]:
    """ShareGPT rows may keep the system prompt beside the conversation."""
    system = row.get("system")
    if isinstance(system, str) and system and messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    return messages


def _read_message(item: Any, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise RowError(f"{where} is {_kind(item)}, not a message.", fix=_FORMATS)
    _refuse_media(item, where)
    if "role" not in item and "from" in item:
        item = _from_sharegpt(item, where)
    role = item.get("role")
    if role not in ROLES:
        said = f"has the role {role!r}" if role is not None else "has no 'role'"
        hint = did_you_mean(role, ROLES) if isinstance(role, str) else ""
        raise RowError(f"{where} {said}.", fix=f"{hint} The roles are {', '.join(ROLES)}.".strip())
    message = Message(role=role)
    extra: dict[str, Any] = {
        key: value
        for key, value in item.items()
        if value is not None and key not in ("role", "content", "tool_calls", *_REASONING)
    }
    message.update(extra)  # type: ignore[typeddict-item]  # templates may read keys of their own
    if (content := item.get("content")) is not None:
        message["content"] = _text(content, f"{where}.content")
    reasoning = next((item[key] for key in _REASONING if item.get(key) is not None), None)
    if reasoning is not None:
        message["reasoning_content"] = _text(reasoning, f"{where}.reasoning_content")
    if item.get("tool_calls"):
        message["tool_calls"] = _tool_calls(item["tool_calls"], f"{where}.tool_calls")
    if "content" not in message and not ("tool_calls" in message and role == "assistant"):
        raise RowError(f"{where} has no 'content'.")
    if message.get("weight", 1) not in (0, 1):
        raise RowError(f"{where}.weight is {message['weight']!r}; it can be 0 (context) or 1.")
    return message


def _from_sharegpt(item: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    speaker = item["from"]
    role = _SHAREGPT.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        hint = did_you_mean(speaker, _SHAREGPT) if isinstance(speaker, str) else ""
        raise RowError(
            f"{where} is from {speaker!r}.",
            fix=f"{hint} Known are human, gpt, system, tool, function_call, observation.".strip(),
        )
    rest = {key: value for key, value in item.items() if key not in ("from", "value")}
    if speaker == "function_call":
        call = _parse(item.get("value"))
        return rest | {"role": role, "tool_calls": call if isinstance(call, list) else [call]}
    return rest | {"role": role, "content": item.get("value")}


def _text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence):
        raise RowError(f"{where} is {_kind(value)}, not text.")
    parts: list[str] = []
    for part in value:
        if isinstance(part, str):
            parts.append(part)
            continue
        kind = part.get("type", "text") if isinstance(part, Mapping) else _kind(part)
        text = part.get("text") if isinstance(part, Mapping) else None
        # Some writers give a picture's part a caption as its text.
        if not isinstance(text, str) or any(word in str(kind) for word in _MEDIA):
            said = f"{where} has a part of type {kind!r}; only text is trained on."
            raise RowError(said, "media", fix=_TEXT_ONLY)
        parts.append(text)
    return "".join(parts)


def _refuse_media(item: Mapping[str, Any], where: str) -> None:
    """What stands beside the text would be lost without a word."""
    key = next((key for key in _MEDIA if item.get(key)), None)
    if key is not None:
        said = f"{where} carries '{key}'; only text is trained on."
        raise RowError(said, "media", fix=_TEXT_ONLY)


def _tool_calls(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise RowError(f"{where} is {_kind(value)}, not a list.")
    return [_tool_call(call, f"{where}[{index}]") for index, call in enumerate(value)]


def _tool_call(value: Any, where: str) -> dict[str, Any]:
    """OpenAI's form, with the arguments as an object: templates write them with `tojson`."""
    if not isinstance(value, Mapping):
        raise RowError(f"{where} is {_kind(value)}, not a tool call.")
    flat = value.get("function") is None
    function = value if flat else value["function"]
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise RowError(f"{where} names no function.")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        parsed = _parse(arguments)
        arguments = parsed if isinstance(parsed, dict) else arguments
    function = {"name": function["name"], "arguments": {} if arguments is None else arguments}
    rest = {} if flat else {key: item for key, item in value.items() if item is not None}
    return {"type": "function", **rest, "function": function}


def _parse(text: Any) -> Any:
    """JSON text as its value, or the text itself where it is none."""
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return text


def _kind(value: Any) -> str:
    names = {str: "text", list: "a list", dict: "an object", bool: "a boolean", type(None): "null"}
    names |= {int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
