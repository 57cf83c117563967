"""What to tell a person about a checked data set, and what stops a launch."""

from __future__ import annotations

from pathlib import Path

from ..errors import NOWHERE, Place
from ..findings import Finding, Fix, Severity
from .report import DataReport, Refused
from .rows import RowError

_TEMPLATE = "tokenizer.chat_template"


def data_findings(report: DataReport, table: str = "dataset") -> list[Finding]:
    """The findings of a check; errors block a launch.

    Args:
        report: from `check_dataset`.
        table: the config table the data set is of, `dataset` or `validation_dataset`.
    """
    path, seq_length = f"{table}.path_or_dataset_id", f"{table}.seq_length"
    return [
        *_errors(report, table),
        *_length_warnings(report, seq_length),
        *_turn_warnings(report, path),
        *_remarks(report, path),
    ]


def _errors(report: DataReport, table: str) -> list[Finding]:
    path = f"{table}.path_or_dataset_id"
    errors = [_refusal(path, refused) for refused in report.refused.values()]
    if not report.rows and not report.hub_ids and report.complete:
        fix = Fix(f"Check {path} and {table}.split.")
        errors.append(_finding("error", path, "The data set is empty.", fix))
    elif report.rows and not report.trainable_rows and not errors:
        text = f"No row has a trained token within {report.seq_length} tokens."
        fix = Fix(
            f"Raise {table}.seq_length, or packed_sequence.packed_sequence_size where that is less."
        )
        errors.append(_finding("error", f"{table}.seq_length", text, fix))
    return errors


def _refusal(path: str, refused: Refused) -> Finding:
    first = refused.examples[0]
    message = f"Row {_number(first)}: {first.message}"
    if refused.count > 1:
        one_file = len({error.place and error.place.file for error in refused.examples}) == 1
        rows = ", ".join(_number(error, file=not one_file) for error in refused.examples)
        more = refused.count - len(refused.examples)
        rest = f" and {more} more" if more else ""
        message = f"{message} {refused.count} rows are like it: {rows}{rest}."
    fix = Fix(first.fix) if first.fix else None
    return _finding("error", path, message, fix, first.place or NOWHERE)


def _number(error: RowError, *, file: bool = False) -> str:
    place = error.place or NOWHERE
    return f"{Path(place.file or '').name}:{place.line}" if file else str(place.line)


def _length_warnings(report: DataReport, seq_length: str) -> list[Finding]:
    fix = Fix(
        f"Raise {seq_length}, as far as packed_sequence and the model's positions go, or shorten "
        "the rows."
    )
    said = (
        (
            report.truncated_rows,
            f"{_rows(report.truncated_rows)} longer than {report.seq_length} tokens: "
            f"{report.dropped_supervised} supervised tokens are lost.",
        ),
        (
            report.emptied_rows,
            f"{_rows(report.emptied_rows)} left without a trained token, and skipped.",
        ),
        (
            report.left_out_rows,
            f"{_rows(report.left_out_rows)} longer than {report.seq_length} tokens and left out.",
        ),
    )
    return [_finding("warning", seq_length, text, fix) for count, text in said if count]


def _turn_warnings(report: DataReport, path: str) -> list[Finding]:
    notes = report.notes
    said = (
        (
            report.double_bos_rows,
            _TEMPLATE,
            f"{_rows(report.double_bos_rows)} begun by two beginning-of-text tokens.",
            "Take one out of the template, or out of the rows.",
        ),
        (
            notes.unstopped_turns,
            _TEMPLATE,
            f"Trained turns that end without a stop token: {notes.unstopped_turns}. "
            "The model does not learn to stop.",
            "Let the template end the assistant's turn with the end-of-turn token.",
        ),
        (
            report.stop_tokens > 1,
            _TEMPLATE,
            f"The end of a turn, '{report.stop}', is {report.stop_tokens} tokens here: "
            "the template is not this tokenizer's.",
            "Use the template that the model was trained with.",
        ),
        (
            notes.unproven_turns,
            _TEMPLATE,
            f"Assistant turns left untrained: {notes.unproven_turns}. "
            "Where they stand in the rendering cannot be proven.",
            "Put {% generation %} marks into the template.",
        ),
        (
            notes.unrendered_messages,
            _TEMPLATE,
            f"Messages that the template leaves out or changes: {notes.unrendered_messages}.",
            "Look at the rows in the label inspector.",
        ),
        (
            notes.inner_stops,
            path,
            f"Messages that hold '{report.stop}' in their own text: {notes.inner_stops}.",
            "Give the plain text; the template writes the tokens around it.",
        ),
    )
    return [_finding("warning", key, text, Fix(fix)) for count, key, text, fix in said if count]


def _remarks(report: DataReport, path: str) -> list[Finding]:
    turns = report.notes.rewritten_turns
    said = (
        (
            turns,
            _TEMPLATE,
            f"Earlier turns that the template writes differently than when they are last, mostly "
            f"without their thinking: {turns}. They are trained as they are rendered.",
        ),
        (not report.complete, path, _checked_in_part(report.rows)),
        (
            bool(report.hub_ids),
            path,
            f"{', '.join(report.hub_ids)}: on the hub, and checked when the run starts.",
        ),
    )
    return [_finding("info", key, text) for count, key, text in said if count]


def _checked_in_part(rows: int) -> str:
    if rows:
        return f"Only the first {rows} rows were checked."
    return "No row was checked: the first ones are too long to be looked at before a launch."


def _finding(
    severity: Severity, key: str, message: str, fix: Fix | None = None, place: Place = NOWHERE
) -> Finding:
    return Finding(severity, message, place, key=key, fix=fix)


def _rows(count: int) -> str:
    return "1 row is" if count == 1 else f"{count} rows are"
