"""Where the assistant's turns stand in a rendered conversation, each proven or left out.

A turn is what the model has to write: all that follows the generation prompt, up to and including
the token that ends the turn. A boundary is believed only if a second rendering shows it:

- its start, if the conversation up to the turn, with the generation prompt, is a prefix of the
  whole rendering; its end, if the conversation up to and including the turn is one too;
- where a template writes history differently (Qwen 3 drops earlier thinking, Mistral moves the
  system prompt along), if the rendering with that one message's text replaced is the same before
  and after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from ..errors import UsageError
from .rows import Message, RowError, texts_of
from .templates import ChatTemplate

# Private-use characters around a word: no row holds it, no template trims or splits it.
_MARKER = "\ue000tunedeck\ue001"

Tools: TypeAlias = list[dict[str, Any]] | None


@dataclass(frozen=True, slots=True)
class TurnShape:
    """What a template writes around an assistant's text, seen in a conversation of one exchange.

    Attributes:
        header: what precedes the text, and what a generation starts from.
        prompts: whether the template writes the header when asked for a generation prompt.
        stop: the text of the token that ends a turn; empty where the template has none.
        trailer: what is written after the last turn whoever spoke (Llama 3's first template always
            ends with the next header); empty where it is white space.
    """

    header: str
    prompts: bool
    stop: str
    trailer: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant turn, in characters of the rendering.

    Attributes:
        start: the first character after the header.
        end: the one after the stop token; white space that the template adds is left out.
        stopped: whether it ends with a stop token.
        rewritten: whether the template wrote it differently when it was the last message.
    """

    start: int
    end: int
    stopped: bool
    rewritten: bool


@dataclass(frozen=True, slots=True)
class FoundTurns:
    """The trained turns of a conversation that could be proven, and how many could not."""

    turns: list[Turn]
    unproven: int


def is_trained(message: Message) -> bool:
    """Whether the loss is taken on a message."""
    return message["role"] == "assistant" and message.get("weight", 1) != 0


class TurnFinder:
    """Finds assistant turns in the renderings of one template.

    Args:
        template: the template.
        specials: the texts of the tokenizer's special tokens.
    """

    def __init__(self, template: ChatTemplate, specials: tuple[str, ...]) -> None:
        self.template = template
        self._specials = specials

    @cached_property
    def shape(self) -> TurnShape:
        """The template's way to write a turn.

        Raises:
            UsageError: the template cannot render a user message with its answer.
        """
        user = Message(role="user", content="tunedeck")
        answer = Message(role="assistant", content=_MARKER)
        try:
            asked = self.template.render([user]).text
            prompted = self.template.render([user], add_generation_prompt=True).text
            answered = self.template.render([user, answer]).text
        except RowError as error:
            raise UsageError(
                f"{error.message} It was a plain question with its answer.",
                fix="Set tokenizer.chat_template to a template for conversations, and "
                "tokenizer.chat_template_kwargs to what it needs.",
            ) from error
        lead, found, tail = answered.partition(_MARKER)
        if not found:
            raise UsageError(
                "The chat template does not write the assistant's content.",
                fix="Set tokenizer.chat_template to a template for conversations.",
            )
        stop, trailer = self._split_tail(tail)
        if header := prompted[_shared(asked, prompted) :]:
            return TurnShape(header, True, stop, trailer)
        lead = lead.removeprefix(asked)
        return TurnShape(lead if lead.strip() else "", False, stop, trailer)

    def _split_tail(self, tail: str) -> tuple[str, str]:
        """What ends a turn, and what follows it: up to the first special token, if one is there."""
        ends = [tail.find(token) + len(token) for token in self._specials if token in tail]
        end = min(ends, default=len(tail.rstrip()))
        trailer = tail[end:]
        return tail[:end].strip(), trailer if trailer.strip() else ""

    def find(self, messages: Sequence[Message], text: str, tools: Tools) -> FoundTurns:
        """Find the trained turns of a conversation in `text`, its rendering."""
        proof = _Proof(self.template, self.shape, messages, text, tools)
        turns: list[Turn] = []
        unproven = 0
        for index, message in enumerate(messages):
            if is_trained(message):
                span = proof.span(index)
                if span is None:
                    unproven += 1
                else:
                    turns.append(self._trimmed(text, *span))
        return FoundTurns(turns, unproven)

    def stops(self, text: str) -> bool:
        """Whether a text ends with a token that ends a turn."""
        stop = self.shape.stop
        return bool(stop and text.endswith(stop)) or text.endswith(self._specials)

    def _trimmed(self, text: str, start: int, end: int, rewritten: bool) -> Turn:
        body = text[start:end].rstrip()
        if self.stops(body):
            return Turn(start, start + len(body), True, rewritten)
        return Turn(start, end, False, rewritten)


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


@dataclass(frozen=True, slots=True)
class _Proof:
    """The second renderings of one conversation."""

    template: ChatTemplate
    shape: TurnShape
    messages: Sequence[Message]
    text: str
    tools: Tools

    def span(self, index: int) -> tuple[int, int, bool] | None:
        """Start, end and whether it was rewritten, of the turn of one message; None if unproven."""
        start = self._start(index)
        if start is None:
            return None
        last = index == len(self.messages) - 1
        after = self.text if last else self._render(self.messages[: index + 1])
        if after is not None and after.endswith(self.shape.trailer):
            after = after.removesuffix(self.shape.trailer)
            if len(after) > start and self.text.startswith(after):
                return start, len(after), False
        end = None if last else self._stop(index, start)
        return None if end is None else (start, end, True)

    def _start(self, index: int) -> int | None:
        before = self._render(self.messages[:index], prompt=self.shape.prompts)
        if before is not None:
            before = before if self.shape.prompts else before + self.shape.header
            if before.endswith(self.shape.header) and self.text.startswith(before):
                return len(before)
        for field in ("reasoning_content", "content"):
            if around := self._around(index, field):
                return around[0]
        return None

    def _stop(self, index: int, start: int) -> int | None:
        """The end of a turn that is written differently as history: that of its stop token."""
        stop, message = self.shape.stop, self.messages[index]
        if not stop or any(stop in text for text in texts_of(message)):
            return None
        around = None if "tool_calls" in message else self._around(index, "content")
        at = self.text.find(stop, max(start, around[1]) if around else start)
        if at < 0:
            return None
        if around is not None:
            between = self.text[around[1] : at]
            return None if between.strip() else at + len(stop)
        return at + len(stop) if self._precedes(at + len(stop), index + 1) else None

    def _around(self, index: int, field: str) -> tuple[int, int] | None:
        """Where a field of a message stands: all before and after it is as with another text."""
        value = self.messages[index].get(field)
        if not isinstance(value, str) or not value.strip():
            return None
        parts = self._replaced(index, field).split(_MARKER)
        if len(parts) != 2:
            return None
        before, after = parts
        start, end = len(before), len(self.text) - len(after)
        same = self.text.startswith(before) and self.text.endswith(after)
        piece = self.text[start:end].strip()
        return (start, end) if same and piece and piece in value else None

    def _precedes(self, end: int, index: int) -> bool:
        """Whether `end` stands before the text of a message."""
        other = self._replaced(index, "content")
        return other.find(_MARKER) >= end and other[:end] == self.text[:end]

    def _replaced(self, index: int, field: str) -> str:
        changed: Any = {**self.messages[index], field: _MARKER}
        messages = [*self.messages[:index], changed, *self.messages[index + 1 :]]
        return self._render(messages) or ""

    def _render(self, messages: Sequence[Message], *, prompt: bool = False) -> str | None:
        try:
            rendered = self.template.render(
                messages, add_generation_prompt=prompt, tools=self.tools
            )
        except RowError:
            return None
        return rendered.text
