"""`tunedeck replay` and `tunedeck replays`: launch again what was saved, and keep the saved."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ..errors import ExitCode, TunedeckError, UsageError
from .complete import complete_replay, complete_run
from .options import (
    attached_option,
    chosen_profile,
    confirmed,
    detached_option,
    examples,
    force_option,
    json_option,
    online_option,
    overrides_argument,
    yes_option,
)
from .output import line, note, print_error, print_json, print_table

if TYPE_CHECKING:
    from ..replays.lock import Change
    from ..replays.replay import Listed, Replay
    from ..selection import Selection


@click.command(
    epilog=examples("""
    tunedeck replay tuesday
    tunedeck replay tuesday optimizer.lr=5e-5 --dry-run
    """),
)
@click.argument("name", shell_complete=complete_replay)
@overrides_argument
@attached_option
@detached_option
@click.option("-d", "--dry-run", is_flag=True, help="Show what would be sent; write nothing.")
@online_option
@click.option("--accept-changes", is_flag=True, help="Launch with what has changed since.")
@click.option("--frozen", is_flag=True, help="Launch with the values that were saved.")
@force_option
@json_option
def replay(
    name: str,
    overrides: tuple[str, ...],
    attached: str | None,
    detached: str | None,
    dry_run: bool,
    online: bool,
    accept_changes: bool,
    frozen: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Launch a saved launch again, with the profile it was saved with or another.

    What it resolves to now is held against what it resolved to when it was saved. Where nothing
    has changed it goes on, else it asks; without a terminal it needs --accept-changes or --frozen.
    """
    from ..replays.replay import frozen as put_back
    from ..replays.replay import load_replay
    from .steps_run import Mode, run_selection

    profile = chosen_profile(attached, detached)
    if accept_changes and frozen:
        raise UsageError("--accept-changes and --frozen exclude each other.", fix="Give one.")
    saved = load_replay(name)
    selection = replace(saved.selection(), detached=detached is not None)
    if profile is not None:
        selection = replace(selection, profile=profile)
    changes = _changes(saved, selection)
    if frozen:
        selection = put_back(saved, selection, changes)
    elif changes and not accept_changes:
        _say(changes, saved)
        if not dry_run and not _accepted(saved, changes):
            note("Nothing was launched.")
            return ExitCode.OK
    selection = replace(selection, overrides=(*selection.overrides, *overrides))
    mode = Mode(
        attach=detached is None, dry_run=dry_run, online=online, force=force, as_json=as_json
    )
    return run_selection(selection, mode)


@click.group()
def replays() -> None:
    """List, show, save and delete saved launches."""


@replays.command("list", epilog=examples("tunedeck replays list"))
@json_option
def list_command(as_json: bool) -> int:
    """List the repository's replays, your own, and the shipped examples."""
    from ..replays.replay import list_replays

    listed = list_replays()
    if as_json:
        print_json([_row(one) for one in listed])
        return ExitCode.OK
    rows = [_row(one) for one in listed]
    print_table(
        ("NAME", "FROM", "STEP", "CONFIG", "PROFILE", "DESCRIPTION"),
        [(r["name"], r["source"], r["step"], r["config"], r["profile"], _words(r)) for r in rows],
    )
    return ExitCode.OK


@replays.command(epilog=examples("tunedeck replays show tuesday"))
@click.argument("name", shell_complete=complete_replay)
@json_option
def show(name: str, as_json: bool) -> int:
    """Show a replay's file, and what has changed since it was saved."""
    from ..replays.replay import load_replay

    saved = load_replay(name)
    problem: TunedeckError | None = None
    changes: list[Change] | None = None
    try:
        changes = _changes(saved, saved.selection())
    except TunedeckError as error:  # it can be shown though it cannot be launched now
        problem = error
    if as_json:
        print_json(
            {
                "name": saved.name,
                "source": saved.source,
                "file": str(saved.file),
                "replay": saved.ingredients.model_dump(mode="json"),
                "changes": None if changes is None else [c.to_json() for c in changes],
                "problem": problem.message if problem else None,
            }
        )
        return ExitCode.OK
    note(f"{saved.file} ({saved.source})")
    line(saved.file.read_text(encoding="utf-8").rstrip())
    if changes:
        _say(changes, saved)
    elif saved.ingredients.lock is not None and not problem:
        note("Nothing has changed since it was saved.")
    if problem:
        note("It cannot be launched as things are:")
        print_error(problem)
    return ExitCode.OK


@replays.command(epilog=examples("tunedeck replays save tuesday --from demo --repository"))
@click.argument("name", shell_complete=complete_replay)
@click.option(
    "--from",
    "run",
    metavar="RUN",
    required=True,
    shell_complete=complete_run,
    help="The run to save, by id or name.",
)
@click.option("--description", default="", help="What it is for, in words.")
@click.option(
    "--repository", is_flag=True, help="Save it in this repository's profiles/, to be committed."
)
@click.option("--force", is_flag=True, help="Replace a replay of that name.")
@json_option
def save(
    name: str, run: str, description: str, repository: bool, force: bool, as_json: bool
) -> int:
    """Save what a run was launched with."""
    from ..replays.files import repository_folder
    from ..replays.replay import save_replay
    from ..runs.registry import Registry

    record = Registry().find(run)
    folder = repository_folder() if repository else None
    file = save_replay(record.plan, name, folder=folder, description=description, force=force)
    if as_json:
        print_json({"name": name, "file": str(file), "run_id": record.run_id})
        return ExitCode.OK
    line(f"Saved {record.run_id} as '{name}' in {file}.")
    note(f"Launch it again: tunedeck replay {name}")
    return ExitCode.OK


@replays.command(epilog=examples("tunedeck replays delete tuesday --yes"))
@click.argument("name", shell_complete=complete_replay)
@yes_option
@json_option
def delete(name: str, yes: bool, as_json: bool) -> int:
    """Delete a replay."""
    from ..replays.files import find_replay
    from ..replays.replay import delete_replay

    file, _ = find_replay(name)
    if not confirmed(f"Delete {file}?", yes=yes):
        return ExitCode.OK
    deleted = delete_replay(name)
    if as_json:
        print_json({"name": name, "file": str(deleted)})
    else:
        line(f"Deleted {deleted}.")
    return ExitCode.OK


def _changes(saved: Replay, selection: Selection) -> list[Change]:
    from ..replays.replay import changes_since
    from ..resolve import resolve

    if saved.ingredients.lock is None:
        return []
    return changes_since(saved, resolve(selection))


def _say(changes: Sequence[Change], saved: Replay) -> None:
    note(f"Changed since '{saved.name}' was saved:")
    for change in changes:
        note(f"  {change}")


def _accepted(saved: Replay, changes: Sequence[Change]) -> bool:
    if not _may_ask():
        raise UsageError(
            f"'{saved.name}' does not resolve to what it did when it was saved: "
            f"{', '.join(change.key for change in changes)}.",
            fix="Launch with what has changed: --accept-changes. "
            "Launch with what was saved: --frozen.",
        )
    return click.confirm("Launch with these changes?", err=True)


def _may_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _row(listed: Listed) -> dict[str, Any]:
    saved = listed.replay.ingredients if listed.replay else None
    return {
        "name": listed.name,
        "source": listed.source,
        "file": str(listed.file),
        "step": saved.step if saved else None,
        "config": saved.config if saved else None,
        "profile": saved.profile if saved else None,
        "description": saved.description if saved else "",
        "locked": saved.lock is not None if saved else False,
        "problem": str(listed.problem) if listed.problem else None,
    }


def _words(row: dict[str, Any]) -> str:
    return f"cannot be read: {row['problem']}" if row["problem"] else str(row["description"])
