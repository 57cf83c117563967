"""What became of the rows of a data set, in the words that the launcher has for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ...core.chat import (
    ChatTokenizer,
    DataReport,
    Notes,
    Refused,
    RowError,
    TokenizedChat,
    data_findings,
)
from ...core.errors import UsageError
from ...core.schema.data import DatasetConfig

_EXAMPLES = 10
_NOTES = tuple(one.name for one in fields(Notes))


@dataclass(slots=True)
class Summary:
    """What became of the rows of one source.

    Attributes:
        seen, rows: rows read, and those of them that are trained on.
        tokens, supervised: of the latter, and how many tokens are trained.
        truncated, lost: rows cut at `seq_length`, and the supervised tokens that this lost.
        dropped: rows over `seq_length` that `truncation: drop` left out.
        emptied: rows whose supervised tokens all lay behind the cut.
        double_bos: rows that begin with two beginning-of-text tokens.
        notes: what else is unusual.
    """

    seen: int = 0
    rows: int = 0
    tokens: int = 0
    supervised: int = 0
    truncated: int = 0
    lost: int = 0
    dropped: int = 0
    emptied: int = 0
    double_bos: int = 0
    notes: dict[str, int] = field(default_factory=dict)

    def count(self, chat: TokenizedChat, config: DatasetConfig) -> bool:
        """Add a row; whether it is trained on."""
        over = config.seq_length is not None and chat.length > config.seq_length
        if over and config.truncation == "drop":
            self.dropped += 1
            return False
        self.truncated += over
        self.lost += chat.dropped_trained
        if not any(chat.trained[1:]):
            self.emptied += 1
            return False
        self.rows += 1
        self.tokens += len(chat.input_ids)
        self.supervised += chat.supervised
        self.double_bos += chat.double_bos
        for note in _NOTES:
            if count := getattr(chat.notes, note):
                self.notes[note] = self.notes.get(note, 0) + count
        return True

    def warnings(self, config: DatasetConfig, table: str, tokenizer: ChatTokenizer) -> list[str]:
        """What a person would want to know of, in the words that the launcher has for it."""
        stop = tokenizer.finder(None).shape.stop
        report = DataReport(
            rows=self.seen,
            limit=None,
            complete=True,
            refused={},
            seq_length=config.seq_length,
            lengths=[config.seq_length or 0] * self.rows,
            truncated_rows=self.truncated,
            dropped_supervised=self.lost,
            emptied_rows=self.emptied,
            double_bos_rows=self.double_bos,
            notes=Notes(**self.notes),
            stop=stop,
            stop_tokens=len(tokenizer.encode(stop).ids),
        )
        said = [one.message for one in data_findings(report, table) if one.severity == "warning"]
        if self.dropped:
            said.append(f"{self.dropped} rows over {config.seq_length} tokens are left out.")
        return said


def raise_refused(
    errors: Sequence[RowError], summary: Summary, spec: str, config: DatasetConfig, table: str
) -> None:
    """Raise UsageError if rows are refused or none is left, naming each reason once."""
    by_reason: dict[Any, list[RowError]] = {}
    for error in errors:
        by_reason.setdefault(error.refusal, []).append(error)
    report = DataReport(
        rows=summary.seen + len(errors),
        limit=None,
        complete=True,
        refused={
            reason: Refused(len(found), tuple(found[:_EXAMPLES]))
            for reason, found in by_reason.items()
        },
        seq_length=config.seq_length,
        lengths=[0] * summary.rows,
        emptied_rows=summary.seen - summary.rows if not errors else 0,
    )
    found = [one for one in data_findings(report, table) if one.severity == "error"]
    if found:
        raise UsageError(
            f"'{spec}': " + "\n".join(one.message for one in found),
            place=found[0].place,
            fix=found[0].fix.words if found[0].fix else "",
        )
