"""What a check of a data set found."""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import NOWHERE
from .masks import NO_NOTES, Notes
from .rows import Refusal, RowError

_BINS = 12


@dataclass(frozen=True, slots=True)
class Refused:
    """The rows that are refused for one reason: how many, and the first of them."""

    count: int
    examples: tuple[RowError, ...]


@dataclass(frozen=True, slots=True)
class LengthBin:
    """How many rows have at least `start` and fewer than `stop` tokens."""

    start: int
    stop: int
    rows: int


@dataclass(frozen=True)
class DataReport:
    """A data set, looked at row by row.

    Attributes:
        rows: how many were looked at.
        limit: the most that were to be looked at; None for all.
        complete: whether that was all of them.
        refused: what is refused, by reason.
        hub_ids: sources that are not on this machine and were not looked at.
        seq_length: the most tokens of a row that are kept.
        lengths: tokens of each row that is neither refused nor left out, before truncation; empty
            without a tokenizer.
        supervised_tokens: those the loss is taken on, after truncation.
        truncated_rows: rows longer than `seq_length`.
        dropped_supervised: trained tokens that truncation loses.
        emptied_rows: rows that truncation leaves without a trained token; training skips them.
        left_out_rows: rows longer than `seq_length` under `truncation: drop`.
        double_bos_rows: rows that begin with two beginning-of-text tokens.
        notes: what else is unusual, summed over the rows.
        stop: the text that ends a turn, empty where the template has none.
        stop_tokens: how many tokens of the tokenizer that text is.
    """

    rows: int
    limit: int | None
    complete: bool
    refused: Mapping[Refusal, Refused]
    hub_ids: tuple[str, ...] = ()
    seq_length: int | None = None
    lengths: Sequence[int] = field(default=(), repr=False)
    supervised_tokens: int = 0
    truncated_rows: int = 0
    dropped_supervised: int = 0
    emptied_rows: int = 0
    left_out_rows: int = 0
    double_bos_rows: int = 0
    notes: Notes = NO_NOTES
    stop: str = ""
    stop_tokens: int = 0

    @property
    def refused_rows(self) -> int:
        """How many rows are refused, for whatever reason."""
        return sum(refused.count for refused in self.refused.values())

    @property
    def trainable_rows(self) -> int:
        """How many rows training gets to see."""
        return self.rows - self.refused_rows - self.emptied_rows - self.left_out_rows

    @property
    def tokens(self) -> int:
        """Tokens after truncation."""
        return sum(self._kept())

    def padding_share(self, batch_size: int, *, sorted_within: int | None = None) -> float:
        """The share of padding when rows in random order are padded to the longest of a batch.

        Args:
            batch_size: rows of a batch.
            sorted_within: rows of like length of so many are put together first, as the trainer
                does within a step; None batches them as they come.
        """
        kept = self._kept()
        random.Random(0).shuffle(kept)  # noqa: S311  # the same estimate every time
        window = max(sorted_within or batch_size, batch_size)
        slots = 0
        for start in range(0, len(kept), window):
            step = sorted(kept[start : start + window])
            batches = (step[at : at + batch_size] for at in range(0, len(step), batch_size))
            slots += sum(max(batch) * len(batch) for batch in batches)
        return 1 - sum(kept) / slots if slots else 0.0

    def packed_padding_share(self, size: int) -> float:
        """The share of padding when rows are packed into sequences of `size` tokens.

        The longest row goes first, each into the fullest sequence that has room for it.
        """
        rooms: list[int] = []
        sequences = 0
        kept = sorted((min(length, size) for length in self._kept()), reverse=True)
        for length in kept:
            at = bisect_left(rooms, length)
            if at == len(rooms):
                sequences += 1
                room = size
            else:
                room = rooms.pop(at)
            insort(rooms, room - length)
        return 1 - sum(kept) / (sequences * size) if sequences else 0.0

    def histogram(self) -> list[LengthBin]:
        """Row lengths before truncation, in about a dozen bins of a round width."""
        if not self.lengths:
            return []
        width = _round_up(max(self.lengths) / _BINS)
        counts = [0] * (max(self.lengths) // width + 1)
        for length in self.lengths:
            counts[length // width] += 1
        return [
            LengthBin(index * width, (index + 1) * width, rows) for index, rows in enumerate(counts)
        ]

    def to_json(self, *, batch_size: int = 1) -> dict[str, Any]:
        """Plain values, with the padding share of a batch size."""
        return {
            "rows": self.rows,
            "complete": self.complete,
            "limit": self.limit,
            "trainable_rows": self.trainable_rows,
            "refused": {
                reason: {
                    "count": refused.count,
                    "rows": [_row_json(error) for error in refused.examples],
                }
                for reason, refused in self.refused.items()
            },
            "hub_ids": list(self.hub_ids),
            "seq_length": self.seq_length,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "truncated_rows": self.truncated_rows,
            "dropped_supervised": self.dropped_supervised,
            "emptied_rows": self.emptied_rows,
            "left_out_rows": self.left_out_rows,
            "double_bos_rows": self.double_bos_rows,
            **asdict(self.notes),
            "stop": self.stop,
            "stop_tokens": self.stop_tokens,
            "lengths": [asdict(one) for one in self.histogram()],
            "padding": {"batch_size": batch_size, "share": self.padding_share(batch_size)},
        }

    def _kept(self) -> list[int]:
        most = self.seq_length
        return [length if most is None else min(length, most) for length in self.lengths]


def _row_json(error: RowError) -> dict[str, Any]:
    place = error.place or NOWHERE
    return {"file": place.file, "row": place.line, "message": error.message, "fix": error.fix}


def _round_up(width: float) -> int:
    """The next width among 1, 2, 5, 10, 20, 50 and so on."""
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power >= width:
                return step * power
        power *= 10
