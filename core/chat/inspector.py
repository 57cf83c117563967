"""The label inspector: rows as the model sees them, each token trained, context or dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

from ..errors import Place
from .masks import NO_NOTES, Mask, Notes, label_chat, tokenize_chat
from .reading import LOOKED_AT, FirstRows, SourceRow, scan_rows
from .rows import RowError, to_messages, to_tools
from .sources import DataSpec, find_sources
from .splits import parse_split
from .tokenizer import ChatTokenizer

Status: TypeAlias = Literal["trained", "context", "dropped"]
"""The loss is taken on the token, or not, or it lies beyond `seq_length`."""


@dataclass(frozen=True, slots=True)
class InspectedToken:
    """One token; the texts of a row's tokens join to its rendering.

    A character that is several tokens is the text of the first of them.
    """

    id: int
    text: str
    status: Status


@dataclass(frozen=True, slots=True)
class InspectedRow:
    """One row.

    Attributes:
        place: its file and row number.
        tokens: all its tokens, dropped ones included; none if it is refused.
        refused: why it cannot be trained on.
        double_bos: whether it begins with two beginning-of-text tokens.
        notes: what a person should know about it.
    """

    place: Place
    tokens: tuple[InspectedToken, ...] = ()
    refused: RowError | None = None
    double_bos: bool = False
    notes: Notes = NO_NOTES

    def count(self, status: Status) -> int:
        """How many tokens have a status."""
        return sum(token.status == status for token in self.tokens)

    def to_json(self) -> dict[str, Any]:
        """Plain values, tokens as `[id, text, status]`."""
        return {
            "file": self.place.file,
            "row": self.place.line,
            "refused": {"message": self.refused.message, "fix": self.refused.fix}
            if self.refused
            else None,
            "trained": self.count("trained"),
            "context": self.count("context"),
            "dropped": self.count("dropped"),
            "double_bos": self.double_bos,
            **asdict(self.notes),
            "tokens": [[token.id, token.text, token.status] for token in self.tokens],
        }


def inspect_rows(
    spec: DataSpec,
    tokenizer: ChatTokenizer,
    *,
    split: str | None = None,
    seq_length: int | None = None,
    mask: Mask = "assistant",
    limit: int | None = 20,
) -> Iterator[InspectedRow]:
    """Tokenize the rows of local files and say of each token what becomes of it.

    Args:
        spec: `dataset.path_or_dataset_id`; a hub id has no local rows.
        tokenizer: the tokenizer with its template.
        split: `dataset.split`.
        seq_length: tokens beyond it are dropped.
        mask: what is trained.
        limit: the most rows, of at most `LOOKED_AT` characters together, shared evenly by the
            sources; None for all.

    Raises:
        UsageError: the files cannot be found, or the template is unusable.
    """
    part = parse_split(split)
    sources = find_sources(spec, split=part.name)
    for number, source in enumerate(sources):
        most = text = None
        if limit is not None:
            # The first sources have one more where the rows cannot be shared evenly.
            most = (limit - number + len(sources) - 1) // len(sources)
            text = LOOKED_AT // len(sources)
        for row in FirstRows(scan_rows(source.files, part), most=most, text=text):
            yield inspect_row(row, tokenizer, seq_length=seq_length, mask=mask)


def inspect_row(
    row: SourceRow | RowError,
    tokenizer: ChatTokenizer,
    *,
    seq_length: int | None = None,
    mask: Mask = "assistant",
) -> InspectedRow:
    """Tokenize one row of `scan_rows` and say of each token what becomes of it."""
    if isinstance(row, RowError):
        return InspectedRow(row.place or Place(), refused=row)
    place = Place(row.file, row.number)
    try:
        messages, tools = to_messages(row.row), to_tools(row.row)
        text = label_chat(tokenizer, messages, mask=mask, tools=tools).text
        chat = tokenize_chat(tokenizer, messages, mask=mask, tools=tools)
    except RowError as error:
        return InspectedRow(place, refused=error.at(row.file, row.number))
    kept = chat.length if seq_length is None else seq_length
    tokens: list[InspectedToken] = []
    cursor = 0
    encoding = tokenizer.encode(text)
    for index, (id, (_, end)) in enumerate(zip(*encoding, strict=True)):
        inside: Status = "trained" if chat.trained[index] else "context"
        piece, cursor = text[cursor:end], max(cursor, end)
        tokens.append(InspectedToken(id, piece, "dropped" if index >= kept else inside))
    if tokens and cursor < len(text):
        tokens[-1] = replace(tokens[-1], text=tokens[-1].text + text[cursor:])
    return InspectedRow(place, tuple(tokens), None, chat.double_bos, chat.notes)
