"""What there is to read about a run: how it ended, and everything that is known of it."""

from __future__ import annotations

from pathlib import Path

import yaml
from textual.content import Content

from ..core.runs.outcome import (
    diagnosis_of,
    first_and_last_answers,
    list_checkpoints,
    loss_change,
    next_commands,
    product,
    read_result,
)
from ..core.runs.record import RunRecord, iso_utc
from ..core.states import RunState
from ..core.text import counted, strip_controls
from .words import safe

_ANSWERS = 3
_LONGEST = 90
_LINE = 68
"""What fits beside a label in a line of 80 columns."""


def outcome_of(record: RunRecord) -> Content:
    """How an ended run ended, in a few lines; nothing for one that goes on."""
    if record.state is RunState.SUCCEEDED:
        return Content("\n").join(_success(record))
    lines = []
    if diagnosis := diagnosis_of(record):
        lines.append(Content.assemble(("cause: ", "bold"), strip_controls(diagnosis.cause)))
        lines += [
            Content.assemble(("fix:   ", "bold"), strip_controls(advice))
            for advice in diagnosis.advice[:2]
        ]
    if record.state.terminal and list_checkpoints(record):
        lines.append(Content.assemble(("r", "bold $accent"), " goes on from its checkpoint"))
    return Content("\n").join(lines)


def _success(record: RunRecord) -> list[Content]:
    result = read_result(record)
    change = loss_change(result)
    lines = [Content(change)] if change else []
    told = []
    for before, after in first_and_last_answers(record)[:1]:
        told += [("asked", before.prompt), ("before", before.text), ("after", after.text)]
    shown = [(label, _short(text, _LINE) or "(nothing)") for label, text in told]
    if path := product(result):
        home = str(Path.home())
        shown.append(("result", f"~{path[len(home) :]}" if path.startswith(f"{home}/") else path))
    # What no key does is named first: a talk with it, or bringing it home.
    shown += [("next", command) for command in next_commands(record)[:1]]
    lines += [Content.assemble((f"{f'{label}:':<8}", "bold"), safe(t)) for label, t in shown]
    return lines


def facts_of(record: RunRecord) -> Content:
    """Everything: identity, times, checkpoints, answers, diagnosis, what to do next, the config."""
    launch = record.plan["launch"]
    rows = {
        "run": record.run_id,
        "step": f"{record.step} -c {record.config}",
        "profile": f"{record.profile} ({record.backend})",
        "job": record.job_id,
        "state": " ".join(filter(None, dict.fromkeys((record.state, record.word, record.reason)))),
        "exit code": record.exit_code,
        "processes": f"{launch['world_size']} on {counted(launch['nodes'], 'node')}",
        "digest": record.plan["digest"],
        "created": iso_utc(record.created_at),
        "started": iso_utc(record.started_at),
        "ended": iso_utc(record.ended_at),
        "folder": record.run_dir,
        "result": product(read_result(record)),
        "checkpoints": ", ".join(
            f"step {one['step']}{' (best)' if one['best'] else ''}"
            for one in list_checkpoints(record)
        ),
    }
    lines = [
        Content.assemble((f"{label:<12}", "$text-muted"), safe(value))
        for label, value in rows.items()
        if value not in (None, "")
    ]
    if overrides := record.plan["overrides"]:
        lines += [_heading("Changed"), *(Content(f"  {safe(text)}") for text in overrides)]
    if diagnosis := diagnosis_of(record):
        lines += [_heading("Diagnosis"), Content(strip_controls(diagnosis.cause))]
        if diagnosis.evidence:
            lines.append(Content(f"  log: {safe(diagnosis.evidence)}"))
        lines += [Content(f"  fix: {strip_controls(advice)}") for advice in diagnosis.advice]
    if answers := first_and_last_answers(record):
        lines.append(_heading("Answers"))
        for before, after in answers[:_ANSWERS]:
            lines += [
                Content(f"  asked   {_short(before.prompt)}"),
                Content(f"  before  {_short(before.text)}"),
                Content(f"  after   {_short(after.text)}"),
            ]
    if record.state is RunState.SUCCEEDED and (commands := next_commands(record)):
        lines += [_heading("Next"), *(Content(f"  {safe(command)}") for command in commands)]
    config = yaml.safe_dump(dict(record.plan["config_values"]), sort_keys=False, allow_unicode=True)
    lines += [_heading("Config"), Content(strip_controls(config))]
    return Content("\n").join(lines)


def _heading(text: str) -> Content:
    return Content.styled(f"\n{text}", "bold $primary")


def _short(text: str, longest: int = _LONGEST) -> str:
    flat = safe(" ".join(text.split()))
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"
