"""`tunedeck runs`: what ran and what runs, and what else can be done with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from ..errors import ExitCode
from ..states import RunState
from .complete import complete_run
from .lazy import LazyGroup
from .options import examples, json_option, run_argument
from .runs_asked import run_now

if TYPE_CHECKING:
    from ..logs.log_filter import Level


_COMMANDS = {
    "list": "runs:list_runs",
    "show": "runs:show",
    "logs": "runs:logs",
    "metrics": "runs:metrics",
    "wait": "runs:wait",
    "cancel": "runs_change:cancel_run",
    "suspend": "runs_change:suspend_run",
    "resume": "runs_change:resume",
    "fetch": "runs_change:fetch",
    "attach": "runs_change:attach",
    "delete": "runs_change:delete",
}


@click.group("runs", cls=LazyGroup, lazy=_COMMANDS)
def runs() -> None:
    """List, watch, cancel and resume runs.

    RUN is an id, the start of one, or a name (the newest run of it).
    """


@click.command(
    "list",
    epilog=examples("""
    tunedeck runs list --state running --state queued
    tunedeck runs list --step peft/automodel --limit 5 --json
    """),
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([str(state) for state in RunState]),
    help="Only runs in this state. Repeatable.",
)
@click.option("--step", help="Only runs of this step.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, the newest.")
@json_option
def list_runs(states: tuple[str, ...], step: str | None, limit: int | None, as_json: bool) -> None:
    """List runs, the newest first, as their backends see them now."""
    from ..runs.registry import Registry
    from ..runs.watch import refresh
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


@click.command("show", epilog=examples("tunedeck runs show demo"))
@run_argument
@json_option
def show(query: str, as_json: bool) -> None:
    """Show one run: what it is, how it goes or went, what it left."""
    from .output import print_json
    from .runs_show import print_run, run_json

    record, _ = run_now(query)
    if as_json:
        print_json(run_json(record))
    else:
        print_run(record)


@click.command(
    "logs",
    short_help="Print or follow a run's log.",
    epilog=examples("""
    tunedeck runs logs -f demo
    tunedeck runs logs demo --rank 0 --level warning --tail 50
    tunedeck runs logs demo > demo.log
    """),
)
@run_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends; exit as it did.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--rank", type=click.IntRange(min=0), help="Only the lines of this rank.")
@click.option("--node", type=click.IntRange(min=0), help="The log of this node, 0 for the first.")
@click.option(
    "--level", type=click.Choice(["warning", "error"]), help="Only lines at least so serious."
)
@json_option
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
    from ..logs.log_filter import LogFilter
    from ..logs.spool_reader import SpoolReader
    from .runs_logs import bring_up_to_date, follow_node, log_of_node, print_filtered, print_log

    wanted = LogFilter(rank, level)
    record, registry = run_now(query)
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
        return run_now(query)[0].state.exit_code
    from .follow import follow_run

    return follow_run(record, registry, as_stream=as_json, offset=offset, wanted=wanted)


@click.command(
    "metrics",
    short_help="Print what runs measured, or draw it.",
    epilog=examples("""
    tunedeck runs metrics demo
    tunedeck runs metrics demo demo-2 --plot --key val_loss
    """),
)
@click.argument("queries", metavar="RUN...", nargs=-1, required=True, shell_complete=complete_run)
@click.option("--plot", is_flag=True, help="Draw one value, the curves of all runs in one frame.")
@click.option("--key", metavar="KEY", help="The value to draw; loss by default.")
@json_option
def metrics(queries: tuple[str, ...], plot: bool, key: str | None, as_json: bool) -> None:
    """Print what runs measured: a curve for each value, or with --json all points.

    With --plot, one value of several runs is drawn over each other.
    """
    from ..charts.metrics import read_metrics, to_json
    from .output import line, note, print_json
    from .runs_logs import bring_up_to_date
    from .runs_show import print_curves

    records = [run_now(query)[0] for query in queries]
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


@click.command(
    "wait",
    short_help="Wait until a run has ended.",
    epilog=examples("tunedeck runs wait demo --timeout 3600"),
)
@run_argument
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer.")
@json_option
def wait(query: str, timeout: float | None, as_json: bool) -> int:
    """Wait until a run has ended, and exit as it did: 0, 100, 103; 101 if it goes on."""
    from ..runs.watch import wait_until_ended
    from .ending import print_ending
    from .live import state_words
    from .output import note, print_json

    record, registry = run_now(query)
    record = asyncio.run(wait_until_ended(record, registry, timeout))
    if as_json:
        print_json(record.to_json())
    elif record.state.terminal:
        print_ending(record, err=False)
    else:
        note(state_words(record))
    return record.state.exit_code
