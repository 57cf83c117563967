"""Pages about runs: the list, one run in full, its curves."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..charts.metrics import Metrics, read_metrics, sparkline
from ..keys import table_in
from ..runs.outcome import diagnosis_of, list_checkpoints, product, read_result
from ..runs.record import iso_utc
from ..text import counted, four_digits
from .live import span
from .output import line, print_table, width

if TYPE_CHECKING:
    from ..runs.record import RunRecord

_CURVE_WIDTH = 40
_MESH = ("dp_size", "dp_replicate_size", "tp_size", "cp_size", "ep_size")
_FIRST_KEYS = ("loss", "val_loss")


def print_list(records: Sequence[RunRecord]) -> None:
    """Print runs as a table."""
    now = time.time()
    print_table(
        ("RUN", "NAME", "STATE", "PROFILE", "AGE", "TOOK", "REASON"),
        [
            (
                record.run_id,
                record.name,
                record.state,
                record.profile,
                span(now - record.created_at),
                _took(record, now),
                record.reason,
            )
            for record in records
        ],
    )


def run_json(record: RunRecord) -> dict[str, Any]:
    """The contract's document for `runs show`: the list's keys and all else there is to know."""
    diagnosis = diagnosis_of(record)
    return {
        **record.to_json(),
        "word": record.word,
        "forced": record.forced,
        "digest": record.plan["digest"],
        "overrides": record.plan["overrides"],
        "world_size": record.plan["launch"]["world_size"],
        "mesh": mesh_of(record),
        "log": str(record.log),
        "result": dict(read_result(record)),
        "checkpoints": list_checkpoints(record),
        "diagnosis": None if diagnosis is None else diagnosis.to_json(),
    }


def mesh_of(record: RunRecord) -> dict[str, Any]:
    """The parallel sizes that the config sets; those it leaves open follow from the world size."""
    parallel = table_in(record.plan["config_values"], "distributed")
    return {key: parallel[key] for key in _MESH if parallel.get(key) is not None}


def print_run(record: RunRecord) -> None:
    """Print all there is to know of a run."""
    line(f"{record.run_id} ({record.name})", bold=True)
    for label, text in _facts(record):
        if text:
            line(f"  {label:<11} {text}")
    measured = read_metrics(record.log)
    if measured.points:
        line("Measured", bold=True)
        print_curves(measured, indent="  ")
    if diagnosis := diagnosis_of(record):
        line("Diagnosis", bold=True)
        line(f"  cause: {diagnosis.cause}")
        if diagnosis.evidence:
            line(f"  log:   {diagnosis.evidence}")
        for advice in diagnosis.advice:
            line(f"  fix:   {advice}")


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    launch = record.plan["launch"]
    mesh = " ".join(f"{key}={value}" for key, value in mesh_of(record).items())
    checkpoints = [
        f"step {found['step']}{' (best)' if found['best'] else ''}"
        for found in list_checkpoints(record)
    ]
    where = (
        f"{record.profile} ({record.backend}{f', job {record.job_id}' if record.job_id else ''})"
    )
    reason = f": {record.reason}" if record.reason else ""
    return [
        ("state", f"{record.state}{reason}{' (forced)' if record.forced else ''}"),
        ("exit code", "" if record.exit_code is None else str(record.exit_code)),
        ("step", shlex.join([record.step, "-c", record.config, *record.plan["overrides"]])),
        ("profile", where),
        ("page", _page(record)),
        (
            "processes",
            f"{launch['world_size']} on {counted(launch['nodes'], 'node')} {mesh}".strip(),
        ),
        ("digest", record.plan["digest"]),
        ("created", iso_utc(record.created_at) or ""),
        ("started", iso_utc(record.started_at) or ""),
        ("ended", iso_utc(record.ended_at) or ""),
        ("took", _took(record, time.time())),
        ("folder", str(record.run_dir)),
        ("result", product(read_result(record)) or ""),
        ("checkpoints", ", ".join(checkpoints)),
    ]


def _page(record: RunRecord) -> str:
    """The job's page at its service, where it has one."""
    handle = record.backend_handle
    return str(handle.data.get("url") or "") if handle else ""


def print_curves(measured: Metrics, *, indent: str = "") -> None:
    """Print a curve a key, with its first, last and smallest value; the losses come first."""
    keys = {key for point in measured.points for key in point} - {"step", "epoch"}
    ordered = sorted(keys, key=lambda key: (key not in _FIRST_KEYS, key))
    label = max(map(len, ordered))
    columns = max(8, min(_CURVE_WIDTH, width() - label - len(indent) - 40))
    for key in ordered:
        values = measured.series(key)
        curve = sparkline(values, columns)
        line(
            f"{indent}{key:<{label}}  {curve:<{columns}}  "
            f"first {four_digits(values[0]):<9} last {four_digits(values[-1]):<9} "
            f"min {four_digits(min(values))}"
        )


def _took(record: RunRecord, now: float) -> str:
    if record.started_at is None:
        return ""
    end = record.ended_at if record.ended_at is not None else now
    return (
        "" if record.state.terminal and record.ended_at is None else span(end - record.started_at)
    )
