"""Conversations to token ids, and which of them the loss is taken on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .rows import Message, Row, RowError, texts_of, to_messages, to_tools
from .tokenizer import ChatTokenizer
from .turns import FoundTurns, TurnFinder, is_trained

if TYPE_CHECKING:
    import tokenizers

Mask: TypeAlias = Literal["assistant", "all"]
"""What is trained: the assistant's turns, or every token."""

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Notes:
    """What is trained otherwise than one may think.

    Attributes:
        unproven_turns: assistant turns left untrained, because their place cannot be proven.
        unstopped_turns: trained turns that no stop token ends.
        rewritten_turns: trained turns that the template wrote differently when they were last.
        unrendered_messages: system and user messages whose content is not in the rendering.
        inner_stops: messages that hold the stop token's text themselves.
    """

    unproven_turns: int = 0
    unstopped_turns: int = 0
    rewritten_turns: int = 0
    unrendered_messages: int = 0
    inner_stops: int = 0


NO_NOTES = Notes()
"""Nothing unusual."""


@dataclass(frozen=True, slots=True)
class TokenizedChat:
    """One conversation, ready to train on.

    Attributes:
        input_ids: token ids, at most `seq_length`.
        trained: for each token, whether the loss is taken on predicting it; never on the first,
            which nothing predicts.
        length: tokens before truncation.
        dropped_trained: trained tokens that truncation lost.
        double_bos: whether the text begins with two beginning-of-text tokens.
        notes: what a person should know about the row.
    """

    input_ids: list[int]
    trained: list[bool]
    length: int
    dropped_trained: int
    double_bos: bool
    notes: Notes

    @property
    def supervised(self) -> int:
        """How many tokens the loss is taken on."""
        return sum(self.trained)


@dataclass(frozen=True, slots=True)
class LabeledText:
    """A rendering with the character spans that are trained, in order and apart."""

    text: str
    spans: list[tuple[int, int]]
    notes: Notes


def tokenize_chat(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    *,
    mask: Mask = "assistant",
    seq_length: int | None = None,
    truncation: bool = True,
    tools: list[dict[str, Any]] | None = None,
) -> TokenizedChat:
    """Tokenize one conversation and mark what is trained.

    The assistant's turns are those of the template's generation marks, or those that a second
    rendering proves (see `turns`). Their end-of-turn token is trained, whatever its id; headers,
    and white space that the template adds after it, are not. A token that covers both a header
    and the turn counts to the turn.

    Args:
        tokenizer: the tokenizer with its template.
        messages: from `to_messages`.
        mask: `assistant`, or `all` for every token.
        seq_length: the most tokens to keep; None keeps all.
        truncation: cut longer conversations at `seq_length`; otherwise they are refused.
        tools: JSON schemas, from `to_tools`.

    Raises:
        RowError: no assistant turn is there or none can be proven, the template refuses the
            conversation, or it is longer than `seq_length` and not to be cut.
    """
    labeled = label_chat(tokenizer, messages, mask=mask, tools=tools)
    (encoding,) = tokenizer.encode_batch([labeled.text])
    return _tokenized(tokenizer, labeled, encoding, seq_length, truncation)


def tokenize_rows(
    tokenizer: ChatTokenizer,
    rows: Iterable[Row],
    *,
    mask: Mask = "assistant",
    seq_length: int | None = None,
    truncation: bool = True,
) -> Iterator[TokenizedChat | RowError]:
    """Tokenize many rows, in order, in batches over all cores; a bad row comes as its error."""
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
        labeled = [_try_label(tokenizer, row, mask) for row in batch]
        texts = [item.text for item in labeled if isinstance(item, LabeledText)]
        encodings = iter(tokenizer.encode_batch(texts))
        for item in labeled:
            if isinstance(item, RowError):
                yield item
                continue
            try:
                yield _tokenized(tokenizer, item, next(encodings), seq_length, truncation)
            except RowError as error:
                yield error


def label_chat(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    *,
    mask: Mask = "assistant",
    tools: list[dict[str, Any]] | None = None,
) -> LabeledText:
    """Render a conversation and find the characters that are trained.

    Raises:
        RowError: as for `tokenize_chat`.
    """
    wanted = sum(map(is_trained, messages))
    if mask == "assistant" and not wanted:
        raise RowError(
            "No assistant turn to train on.",
            "no_assistant",
            fix="Give the row an assistant message, or set dataset.mask to all.",
        )
    rendered = tokenizer.render(messages, tools=tools)
    text = rendered.text
    if not text.isascii():
        _refuse_surrogates(text)
    finder = tokenizer.finder(tools)
    notes = _notes(finder, messages, text)
    if mask == "all":
        return LabeledText(text, [(0, len(text))], notes)
    marks = rendered.generation_spans
    if marks is None:
        return _from_turns(text, finder.find(messages, text, tools), notes, wanted)
    if wanted == sum(message["role"] == "assistant" for message in messages):
        return _from_marks(finder, text, marks, notes, wanted)
    found = finder.find(messages, text, tools)
    proven = _from_turns(text, found, notes, wanted)
    marks = tuple(
        mark for mark in marks if any(start <= mark[0] < end for start, end in proven.spans)
    )
    return _from_marks(finder, text, marks, proven.notes, len(found.turns))


def _notes(finder: TurnFinder, messages: Sequence[Message], text: str) -> Notes:
    stop = finder.shape.stop
    unrendered = inner = 0
    for message in messages:
        if message["role"] in ("system", "user"):
            unrendered += message.get("content", "").strip() not in text
        inner += bool(stop) and any(stop in text for text in texts_of(message))
    return Notes(unrendered_messages=unrendered, inner_stops=inner)


def _try_label(tokenizer: ChatTokenizer, row: Row, mask: Mask) -> LabeledText | RowError:
    try:
        return label_chat(tokenizer, to_messages(row), mask=mask, tools=to_tools(row))
    except RowError as error:
        return error


def _from_turns(text: str, found: FoundTurns, notes: Notes, wanted: int) -> LabeledText:
    if found.unproven == wanted:
        raise RowError(
            "It cannot be proven which part of the rendered conversation is the assistant's.",
            "unproven",
            fix="Put {% generation %} marks into the template (tokenizer.chat_template), "
            "or give each exchange a row of its own.",
        )
    spans = [(turn.start, turn.end) for turn in found.turns if turn.end > turn.start]
    notes = replace(
        notes,
        unproven_turns=found.unproven,
        unstopped_turns=sum(not turn.stopped for turn in found.turns),
        rewritten_turns=sum(turn.rewritten for turn in found.turns),
    )
    return LabeledText(text, spans, notes)


def _from_marks(
    finder: TurnFinder, text: str, marks: Iterable[tuple[int, int]], notes: Notes, turns: int
) -> LabeledText:
    """The template's marks, with the stop token where they end just before it."""
    stop = finder.shape.stop
    spans: list[tuple[int, int]] = []
    stopped = 0
    for start, mark_end in marks:
        end = mark_end
        if stop and not finder.stops(text[start:end].rstrip()) and text.startswith(stop, end):
            end += len(stop)
        if end > start:
            spans.append((start, end))
            stopped += finder.stops(text[start:end].rstrip())
    return LabeledText(text, spans, replace(notes, unstopped_turns=max(turns - stopped, 0)))


def _tokenized(
    tokenizer: ChatTokenizer,
    labeled: LabeledText,
    encoding: tokenizers.Encoding,
    seq_length: int | None,
    truncation: bool,
) -> TokenizedChat:
    ids = encoding.ids
    length = len(ids)
    if seq_length is not None and length > seq_length and not truncation:
        raise RowError(
            f"The row has {length} tokens, more than dataset.seq_length ({seq_length}).",
            "too_long",
            fix="Raise dataset.seq_length, or set dataset.truncation to right or drop.",
        )
    trained = [False] * length
    for start, end in labeled.spans:
        first, last = _tokens_of(encoding, start, end)
        trained[first:last] = [True] * (last - first)
    if trained:
        trained[0] = False
    dropped = 0
    if seq_length is not None and length > seq_length:
        dropped = sum(trained[seq_length:])
        ids, trained = ids[:seq_length], trained[:seq_length]
    bos = tokenizer.bos_id
    return TokenizedChat(
        input_ids=ids,
        trained=trained,
        length=length,
        dropped_trained=dropped,
        double_bos=bos is not None and ids[:2] == [bos, bos],
        notes=labeled.notes,
    )


def _tokens_of(encoding: tokenizers.Encoding, start: int, end: int) -> tuple[int, int]:
    """The first token that covers a span of characters, and the one after the last that does.

    A character can be several tokens, and a normalizer can leave characters without any.
    """
    first = last = None
    while first is None and start < end:
        first = encoding.char_to_token(start)
        start += 1
    while last is None and end >= start:
        end -= 1
        last = encoding.char_to_token(end)
    if first is None or last is None:
        return 0, 0
    while (chars := encoding.token_to_chars(last)) is not None and chars[0] <= end:
        last += 1
        if last == len(encoding):
            break
    return first, last


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        broken = f"\\u{ord(text[error.start]):04x}"
        raise RowError(
            f"The text holds half of a surrogate pair ({broken}).", "malformed"
        ) from error
