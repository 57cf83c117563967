"""Checking a data set before a run is made of it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Literal, TypeAlias

from .masks import Mask, Notes, TokenizedChat, tokenize_rows
from .reading import LOOKED_AT, FirstRows, SourceRow, scan_rows
from .report import DataReport, Refused
from .rows import Refusal, RowError, to_messages, to_tools
from .sources import DataSpec, find_sources
from .splits import parse_split
from .tokenizer import ChatTokenizer
from .turns import is_trained

Truncation: TypeAlias = Literal["right", "drop", "error"]
"""What becomes of a row over `seq_length`: its end is cut off, it is left out, or refused."""

DEFAULT_LIMIT = 10_000
"""Rows looked at before a launch, where they are short."""

_EXAMPLES = 10
_BATCH = 1024


def check_dataset(
    spec: DataSpec,
    tokenizer: ChatTokenizer | None,
    *,
    split: str | None = None,
    seq_length: int | None = None,
    mask: Mask = "assistant",
    truncation: Truncation = "right",
    limit: int | None = DEFAULT_LIMIT,
) -> DataReport:
    """Look at every row of the local files, as the trainer will.

    Args:
        spec: `dataset.path_or_dataset_id`.
        tokenizer: the run's tokenizer; without one only the rows' form is checked.
        split: `dataset.split`.
        seq_length: `dataset.seq_length`.
        mask: `dataset.mask`.
        truncation: `dataset.truncation`.
        limit: the most rows, shared evenly by the sources, as `LOOKED_AT` characters are; None for
            all.

    Raises:
        UsageError: files are missing or of a kind that is not read (packed Parquet), the split is
            none, or the template is unusable.
    """
    part = parse_split(split)
    sources = find_sources(spec, split=part.name)
    local = [source for source in sources if source.files]
    share = text = None
    if limit is not None:
        share, text = (max(1, most // max(1, len(local))) for most in (limit, LOOKED_AT))
    tally = _Tally()
    complete = True
    for source in local:
        rows = FirstRows(scan_rows(source.files, part), most=share, text=text)
        if tokenizer is None:
            tally.read(rows, mask)
        else:
            tally.tokenize(rows, tokenizer, mask, seq_length, truncation)
        complete = complete and rows.exhausted
    stop = tokenizer.finder(None).shape.stop if tokenizer else ""
    return DataReport(
        rows=tally.rows,
        limit=limit,
        complete=complete,
        refused={
            reason: Refused(count, tuple(tally.examples[reason]))
            for reason, count in tally.refused.items()
        },
        hub_ids=tuple(source.hub_id for source in sources if source.hub_id),
        seq_length=seq_length,
        lengths=tally.lengths,
        supervised_tokens=tally.supervised,
        truncated_rows=tally.truncated,
        dropped_supervised=tally.dropped,
        emptied_rows=tally.emptied,
        left_out_rows=tally.left_out,
        double_bos_rows=tally.double_bos,
        notes=Notes(**tally.notes),
        stop=stop,
        stop_tokens=len(tokenizer.encode(stop).ids) if tokenizer else 0,
    )


@dataclass
class _Tally:
    """What has been counted so far."""

    rows: int = 0
    refused: Counter[Refusal] = field(default_factory=Counter)
    examples: dict[Refusal, list[RowError]] = field(default_factory=dict)
    lengths: array[int] = field(default_factory=lambda: array("q"))
    supervised: int = 0
    truncated: int = 0
    dropped: int = 0
    emptied: int = 0
    left_out: int = 0
    double_bos: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def read(self, rows: Iterable[SourceRow | RowError], mask: Mask) -> None:
        """Check the form of rows."""
        for row in rows:
            self.rows += 1
            if isinstance(row, RowError):
                self._refuse(row)
                continue
            try:
                messages = to_messages(row.row)
                to_tools(row.row)
                if mask == "assistant" and not any(map(is_trained, messages)):
                    raise RowError("No assistant turn to train on.", "no_assistant")
            except RowError as error:
                self._refuse(error.at(row.file, row.number))

    def tokenize(
        self,
        rows: Iterable[SourceRow | RowError],
        tokenizer: ChatTokenizer,
        mask: Mask,
        seq_length: int | None,
        truncation: Truncation,
    ) -> None:
        """Check rows by tokenizing them."""
        rows = iter(rows)
        while batch := list(islice(rows, _BATCH)):
            self.rows += len(batch)
            readable = [row for row in batch if isinstance(row, SourceRow)]
            for row in batch:
                if isinstance(row, RowError):
                    self._refuse(row)
            chats = tokenize_rows(
                tokenizer,
                (row.row for row in readable),
                mask=mask,
                seq_length=seq_length,
                truncation=truncation != "error",
            )
            for row, chat in zip(readable, chats, strict=True):
                if isinstance(chat, RowError):
                    self._refuse(chat.at(row.file, row.number))
                elif truncation == "drop" and chat.length > len(chat.input_ids):
                    self.left_out += 1
                else:
                    self._count(row, chat)

    def _count(self, row: SourceRow, chat: TokenizedChat) -> None:
        supervised = chat.supervised
        if not supervised and not chat.dropped_trained:
            error = RowError("No token of the row is trained.", "unsupervised")
            self._refuse(error.at(row.file, row.number))
            return
        self.lengths.append(chat.length)
        self.supervised += supervised
        self.truncated += chat.length > len(chat.input_ids)
        self.dropped += chat.dropped_trained
        self.emptied += not supervised
        self.double_bos += chat.double_bos
        for note in _NOTES:
            if count := getattr(chat.notes, note):
                self.notes[note] += count

    def _refuse(self, error: RowError) -> None:
        self.refused[error.refusal] += 1
        examples = self.examples.setdefault(error.refusal, [])
        if len(examples) < _EXAMPLES:
            examples.append(error)


_NOTES = tuple(one.name for one in fields(Notes))
