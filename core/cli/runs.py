"""`tunedeck runs`: what ran, what runs, and what to do with it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ExitCode, UsageError
from ..states import RunState
from .complete import complete_profile, complete_run

if TYPE_CHECKING:
    from ..log_filter import Level
    from ..record import RunRecord
    from ..registry import Registry

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
_run = click.argument("query", metavar="RUN", shell_complete=complete_run)


@click.group("runs")
def runs() -> None:
    """List, watch, cancel and resume runs.

    RUN is an id, the start of one, or a name (the newest run of it).
    """


@runs.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([str(state) for state in RunState]),
    help="Only runs in this state. Repeatable.",
)
@click.option("--step", help="Only runs of this step.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the newest.")
@_as_json
def list_runs(states: tuple[str, ...], step: str | None, limit: int | None, as_json: bool) -> None:
    """List runs, the newest first, as their backends see them now."""
    from ..registry import Registry
    from ..watch import refresh
    from .output import note, print_json
    from .runs_show import print_list

    registry = Registry()
    unfinished = registry.list(states=[state for state in RunState if not state.terminal])
    for text in asyncio.run(refresh(registry, unfinished)).notes:
        note(text)
    found = registry.list(states=[RunState(state) for state in states], step=step, limit=limit)
    if as_json:
        print_json([record.to_json() for record in found])
    elif found:
        print_list(found)
    else:
        note("No runs. Start one: tunedeck steps run peft/automodel -c tiny")


@runs.command("show")
@_run
@_as_json
def show(query: str, as_json: bool) -> None:
    """Show one run: what it is, how it goes or went, what it left."""
    from .output import print_json
    from .runs_show import print_run, run_json

    record, _ = _now(query)
    if as_json:
        print_json(run_json(record))
    else:
        print_run(record)


@runs.command("logs", short_help="Print or follow a run's log.")
@_run
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends; exit as it did.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--rank", type=click.IntRange(min=0), help="Only the lines of this rank.")
@click.option("--node", type=click.IntRange(min=0), help="The log of this node, 0 for the first.")
@click.option(
    "--level", type=click.Choice(["warning", "error"]), help="Only lines at least so serious."
)
@_as_json
def logs(
    query: str,
    follow: bool,
    tail: int | None,
    rank: int | None,
    node: int | None,
    level: Level | None,
    as_json: bool,
) -> int:
    """Print a run's log: on a terminal as text, in a pipe or file byte for byte."""
    from ..log_filter import LogFilter
    from ..spool_reader import SpoolReader
    from .runs_logs import bring_up_to_date, follow_node, log_of_node, print_filtered, print_log

    wanted = LogFilter(rank, level)
    record, registry = _now(query)
    handle, log = log_of_node(record, node) if node else (record.backend_handle, record.log)
    bring_up_to_date(record, handle, log)
    if wanted and not follow:
        print_filtered(log, wanted, tail, as_json=as_json)
        return ExitCode.OK
    offset = 0
    if tail is not None:
        with SpoolReader(log) as reader:
            offset = reader.tail_offset(tail)
    if not follow:
        print_log(log, offset, as_json=as_json)
        return ExitCode.OK
    if node:
        assert handle is not None
        asyncio.run(follow_node(record, handle, log, offset, wanted, as_json=as_json))
        return _now(query)[0].state.exit_code
    from .follow import follow_run

    return follow_run(record, registry, as_json=as_json, offset=offset, wanted=wanted)


@runs.command("metrics", short_help="Print what runs measured, or draw it.")
@click.argument("queries", metavar="RUN...", nargs=-1, required=True, shell_complete=complete_run)
@click.option("--plot", is_flag=True, help="Draw one value, the curves of all runs in one frame.")
@click.option("--key", metavar="KEY", help="The value to draw; loss by default.")
@_as_json
def metrics(queries: tuple[str, ...], plot: bool, key: str | None, as_json: bool) -> None:
    """Print what runs measured: a curve for each value, or with --json all points.

    With --plot, one value of several runs is drawn over each other.
    """
    from ..metrics import read_metrics, to_json
    from .output import line, note, print_json
    from .runs_logs import bring_up_to_date
    from .runs_show import print_curves

    records = [_now(query)[0] for query in queries]
    for record in records:
        bring_up_to_date(record)
    if plot or key is not None:
        from .metrics_plot import plot_runs

        plot_runs(records, key or "loss", as_json=as_json)
        return
    measured = [read_metrics(record.log) for record in records]
    if as_json:
        points = [to_json(one.points) for one in measured]
        several = [
            {"run_id": record.run_id, "name": record.name, "points": own}
            for record, own in zip(records, points, strict=True)
        ]
        print_json(points[0] if len(records) == 1 else several)
        return
    for record, one in zip(records, measured, strict=True):
        if len(records) > 1:
            line(f"{record.run_id} ({record.name})", bold=True)
        if one.points:
            print_curves(one)
        else:
            note(f"{record.run_id} has measured nothing yet.")


@runs.command("wait", short_help="Wait until a run has ended.")
@_run
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer.")
@_as_json
def wait(query: str, timeout: float | None, as_json: bool) -> int:
    """Wait until a run has ended, and exit as it did: 0, 100, 103; 101 if it goes on."""
    from ..watch import wait_until_ended
    from .ending import print_ending
    from .live import state_words
    from .output import note, print_json

    record, registry = _now(query)
    record = asyncio.run(wait_until_ended(record, registry, timeout))
    if as_json:
        print_json(record.to_json())
    elif record.state.terminal:
        print_ending(record, err=False)
    else:
        note(state_words(record))
    return record.state.exit_code


@runs.command("cancel", short_help="Stop a run, and see that it has.")
@_run
@_as_json
def cancel_run(query: str, as_json: bool) -> None:
    """Stop a run, and return once it is confirmed that nothing of it goes on."""
    from ..launch import cancel
    from ..watch import backend_of
    from .live import state_words
    from .output import line, note, print_json

    record, registry = _now(query)
    if record.state.terminal:
        note(f"{state_words(record)}. It has ended; there is nothing to cancel.")
    else:
        record = asyncio.run(cancel(record, backend_of(record), registry))
        if not as_json:
            line(state_words(record))
    if as_json:
        print_json(record.to_json())


@runs.command("suspend", short_help="Put a run on hold, to go on in place.")
@_run
@_as_json
def suspend_run(query: str, as_json: bool) -> None:
    """Put a run on hold where its service can, and return once nothing of it goes on.

    It saves and gives its machines back. `tunedeck runs resume RUN` has the same job go on.
    """
    from .runs_hold import put_on_hold

    put_on_hold(*_now(query), as_json=as_json)


@runs.command("delete", short_help="Remove the record of a run that ended.")
@_run
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--at-service", is_flag=True, help="Remove the job at the service as well.")
@_as_json
def delete(query: str, yes: bool, at_service: bool, as_json: bool) -> None:
    """Remove a run that has ended: its record, its log and its checkpoints on this machine."""
    from .output import line, print_json

    record, registry = _now(query)
    if not record.state.terminal:
        raise UsageError(
            f"{record.run_id} is {record.state}, and only a run that has ended can be deleted.",
            fix=f"Cancel it first: tunedeck runs cancel {record.run_id}",
        )
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(
                "Deleting asks first, and there is no terminal to answer on.", fix="Pass --yes."
            )
        question = f"Delete {record.run_id} ({record.name}) and all that is in {record.run_dir}?"
        click.confirm(question, abort=True, err=True)
    if at_service:
        from .runs_remote import forget_job

        forget_job(record)
    if record.run_dir.name == record.run_id and record.run_dir.is_dir():
        shutil.rmtree(record.run_dir)
    registry.delete(record.run_id)
    if as_json:
        print_json({"run_id": record.run_id, "deleted": True})
    else:
        line(f"Deleted {record.run_id} ({record.name}).")


@runs.command("fetch", short_help="Bring a run's files home.")
@_run
@click.argument("pattern", required=False)
@_as_json
def fetch(query: str, pattern: str | None, as_json: bool) -> None:
    """Bring a run's files home: its result, metrics, configs and adapter, or what fits PATTERN.

    PATTERN is a glob over paths below the run's folder, for example 'checkpoints/*/*'. Started
    again, it goes on where it was cut off.
    """
    from .runs_remote import fetch_files

    record, _ = _now(query)
    fetch_files(record, pattern, as_json=as_json)


@runs.command("attach", short_help="Follow a run of another machine.")
@click.argument("profile", shell_complete=complete_profile)
@click.argument("job_id")
@click.option("--env-file", type=click.Path(path_type=Path), help="Use this env file.")
@_as_json
def attach(profile: str, job_id: str, env_file: Path | None, as_json: bool) -> int:
    """Follow a run that another machine launched, by the id of its job where PROFILE submits."""
    from .follow import follow_run
    from .runs_remote import attach_job

    record, registry = attach_job(profile, job_id, env_file)
    return follow_run(record, registry, as_json=as_json)


@runs.command("resume", short_help="Go on from a run's last checkpoint.")
@_run
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option("-b", "--batch", "detached", is_flag=True, help="Submit and return.")
@click.option("-d", "--dry-run", is_flag=True, help="Show what would be sent, and do nothing.")
@click.option("--force", is_flag=True, help="Submit despite errors that preflight found.")
@_as_json
def resume(
    query: str,
    overrides: tuple[str, ...],
    detached: bool,
    dry_run: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Start a new run that goes on from the last checkpoint of one that has ended.

    A run that was suspended goes on as the same job, unless values are changed.
    """
    from ..selection import resume_selection
    from ..suspension import is_suspended
    from .steps_run import Mode, run_selection

    record, registry = _now(query)
    if is_suspended(record) and not overrides:
        from .runs_hold import go_on_in_place

        return go_on_in_place(record, registry, detached, dry_run=dry_run, as_json=as_json)
    if not record.state.terminal:
        raise UsageError(
            f"{record.run_id} is {record.state}; it has nothing to resume from before it ends.",
            fix=f"Wait for it: tunedeck runs wait {record.run_id}",
        )
    mode = Mode(attach=not detached, dry_run=dry_run, force=force, as_json=as_json)
    return run_selection(resume_selection(record, overrides), mode)


def _now(query: str) -> tuple[RunRecord, Registry]:
    """The run that is meant, as its backend sees it now, and the registry it is in."""
    from ..registry import Registry
    from ..watch import refresh
    from .output import note

    registry = Registry()
    refreshed = asyncio.run(refresh(registry, [registry.find(query)]))
    for text in refreshed.notes:
        note(text)
    return refreshed.records[0], registry
