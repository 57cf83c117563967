"""How a run ended, in words and as JSON: what it made, or why it failed and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..runs.outcome import (
    diagnosis_of,
    first_and_last_answers,
    list_checkpoints,
    loss_change,
    next_commands,
    product,
    read_result,
)
from ..states import RunState
from .live import span
from .output import line, note

if TYPE_CHECKING:
    from ..runs.record import RunRecord

_MARKS = {
    RunState.SUCCEEDED: ("✓", "green"),
    RunState.FAILED: ("✗", "red"),
    RunState.LOST: ("✗", "red"),
    RunState.CANCELLED: ("✗", "yellow"),
    RunState.PREEMPTED: ("!", "yellow"),
}
_ANSWERS_SHOWN = 3


def print_ending(record: RunRecord, *, err: bool) -> None:
    """Print how the run ended.

    Args:
        record: a run in a terminal state.
        err: whether the good news goes to stderr as well, because stdout is for a JSON document.
    """
    mark, color = _MARKS[record.state]
    words = f"{mark} {record.run_id} ({record.name}) {record.state}"
    if record.started_at is not None and record.ended_at is not None:
        words += f" after {span(record.ended_at - record.started_at)}"
    if record.reason:
        words += f": {record.reason}"
    good = record.state is RunState.SUCCEEDED
    line(words, bold=True, fg=color, err=err or not good)
    if good:
        _print_product(record, err=err)
    else:
        _print_failure(record)


def ending_json(record: RunRecord) -> dict[str, Any]:
    """The contract's document at the end of an attached run, with what it made or why it failed."""
    diagnosis = diagnosis_of(record)
    return {
        "run_id": record.run_id,
        "job_id": record.job_id,
        "backend": record.backend,
        "state": str(record.state),
        "reason": record.reason,
        "exit_code": record.exit_code,
        "run_dir": str(record.run_dir),
        "result": dict(read_result(record)),
        "diagnosis": None if diagnosis is None else diagnosis.to_json(),
    }


def _print_product(record: RunRecord, *, err: bool) -> None:
    result = read_result(record)
    if change := loss_change(result):
        line(f"  {change}", err=err)
    for before, after in first_and_last_answers(record)[:_ANSWERS_SHOWN]:
        line(f"  asked   {_short(before.prompt)}", err=err)
        line(f"  before  {_short(before.text)}", err=err)
        line(f"  after   {_short(after.text)}", err=err)
    if path := product(result):
        line(f"  {result.get('kind', 'result')} {path}", err=err)
    if commands := next_commands(record):
        line("Next:", err=err)
        for command in commands:
            line(f"  {command}", err=err)


def _print_failure(record: RunRecord) -> None:
    if diagnosis := diagnosis_of(record):
        note(f"  cause: {diagnosis.cause}")
        if diagnosis.evidence:
            note(f"  log:   {diagnosis.evidence}")
        for advice in diagnosis.advice:
            note(f"  fix:   {advice}")
    if list_checkpoints(record):
        note(f"  Go on from its last checkpoint: tunedeck runs resume {record.run_id}")
    note(f"  The whole log: tunedeck runs logs {record.run_id}")


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else flat[:79] + "…"
