"""The commands of `tunedeck runs` that do something with a run: stop, keep, remove, go on."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import click

from ..errors import UsageError
from .options import (
    confirmed,
    env_file_option,
    examples,
    force_option,
    json_option,
    overrides_argument,
    profile_argument,
    run_argument,
    yes_option,
)
from .runs_asked import run_now


@click.command(
    "cancel",
    short_help="Stop a run, and see that it has.",
    epilog=examples("tunedeck runs cancel demo"),
)
@run_argument
@json_option
def cancel_run(query: str, as_json: bool) -> None:
    """Stop a run, and return once it is confirmed that nothing of it goes on."""
    from ..launch import cancel
    from ..runs.watch import backend_of
    from .live import state_words
    from .output import line, note, print_json

    record, registry = run_now(query)
    if record.state.terminal:
        note(f"{state_words(record)}. It has ended; there is nothing to cancel.")
    else:
        record = asyncio.run(cancel(record, backend_of(record), registry))
        if not as_json:
            line(state_words(record))
    if as_json:
        print_json(record.to_json())


@click.command(
    "suspend",
    short_help="Put a run on hold, to go on in place.",
    epilog=examples("""
    tunedeck runs suspend demo
    tunedeck runs resume demo
    """),
)
@run_argument
@json_option
def suspend_run(query: str, as_json: bool) -> None:
    """Put a run on hold where its service can, and return once nothing of it goes on.

    It saves and gives its machines back. `tunedeck runs resume RUN` has the same job go on.
    """
    from .runs_hold import put_on_hold

    put_on_hold(*run_now(query), as_json=as_json)


@click.command(
    "delete",
    short_help="Remove the record of a run that ended.",
    epilog=examples("tunedeck runs delete demo --yes"),
)
@run_argument
@yes_option
@click.option("--at-service", is_flag=True, help="Remove the job at the service as well.")
@json_option
def delete(query: str, yes: bool, at_service: bool, as_json: bool) -> None:
    """Remove a run that has ended: its record, its log and its checkpoints on this machine."""
    from .output import line, print_json

    record, registry = run_now(query)
    if not record.state.terminal:
        raise UsageError(
            f"{record.run_id} is {record.state}, and only a run that has ended can be deleted.",
            fix=f"Cancel it first: tunedeck runs cancel {record.run_id}",
        )
    question = f"Delete {record.run_id} ({record.name}) and all that is in {record.run_dir}?"
    if not confirmed(question, yes=yes):
        return
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


@click.command(
    "fetch",
    short_help="Bring a run's files home.",
    epilog=examples("""
    tunedeck runs fetch demo
    tunedeck runs fetch demo 'checkpoints/*/*'
    """),
)
@run_argument
@click.argument("pattern", required=False)
@json_option
def fetch(query: str, pattern: str | None, as_json: bool) -> None:
    """Bring a run's files home: its result, metrics, configs and adapter, or what fits PATTERN.

    PATTERN is a glob over paths below the run's folder, for example 'checkpoints/*/*'. Started
    again, it goes on where it was cut off.
    """
    from .runs_remote import fetch_files

    record, _ = run_now(query)
    fetch_files(record, pattern, as_json=as_json)


@click.command(
    "attach",
    short_help="Follow a run of another machine.",
    epilog=examples("tunedeck runs attach slurm_peft_automodel 4711"),
)
@profile_argument
@click.argument("job_id")
@env_file_option
@json_option
def attach(profile: str, job_id: str, env_file: Path | None, as_json: bool) -> int:
    """Follow a run that another machine launched, by the id of its job where PROFILE submits."""
    from .follow import follow_run
    from .runs_remote import attach_job

    record, registry = attach_job(profile, job_id, env_file)
    return follow_run(record, registry, as_json=as_json)


@click.command(
    "resume",
    short_help="Go on from a run's last checkpoint.",
    epilog=examples("tunedeck runs resume demo step_scheduler.max_steps=400"),
)
@run_argument
@overrides_argument
@click.option("-b", "--batch", "detached", is_flag=True, help="Submit and return.")
@click.option("-d", "--dry-run", is_flag=True, help="Show what would be sent, and do nothing.")
@force_option
@json_option
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
    from ..runs.suspension import is_suspended
    from ..selection import resume_selection
    from .steps_run import Mode, run_selection

    record, registry = run_now(query)
    if is_suspended(record) and not overrides:
        from .runs_hold import go_on_in_place

        return go_on_in_place(record, registry, detached, dry_run=dry_run, as_json=as_json)
    if not record.state.terminal:
        raise UsageError(
            f"{record.run_id} is {record.state}; it has nothing to resume from before it ends.",
            fix=f"Wait for it: tunedeck runs wait {record.run_id}",
        )
    mode = Mode(attach=not detached, dry_run=dry_run, force=force, as_json=as_json)
    return run_selection(resume_selection(record, overrides, detached=detached), mode)
