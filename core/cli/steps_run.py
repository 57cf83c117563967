"""`tunedeck steps run`: preview, submit, stay attached or leave."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import locations
from ..errors import ExitCode, UsageError
from ..findings import exit_code_of
from .complete import complete_run
from .options import (
    attached_option,
    catalog_option,
    chosen_profile,
    config_option,
    detached_option,
    env_file_option,
    examples,
    force_option,
    json_option,
    online_option,
    overrides_argument,
    step_argument,
)

if TYPE_CHECKING:
    from ..prepare import Prepared
    from ..selection import Selection

_EPILOG = examples("""
  tunedeck steps run peft/automodel -c tiny                            here, attached
  tunedeck steps run peft/automodel -c tiny optimizer.lr=1e-4 -d       show, do nothing
  tunedeck steps run sft/automodel -c default -b slurm_sft_automodel   submit and leave
  tunedeck steps run convert/merge_lora --from my-run                  merge a run's adapter
""")


@dataclass(frozen=True, slots=True)
class Mode:
    """What to do with a selection: everything about a launch that is no part of the plan.

    Raises:
        UsageError: if something of a preview is asked for, and no preview.
    """

    attach: bool = True
    dry_run: bool = False
    online: bool = False
    explain: bool = False
    force: bool = False
    accept_changes: bool = False
    frozen: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        if (self.online or self.explain) and not self.dry_run:
            raise UsageError(
                "--online and --explain go with --dry-run, and without it this launches.",
                fix="Add --dry-run to see it, or leave them out to launch it.",
            )


@click.command("run", epilog=_EPILOG)
@step_argument
@overrides_argument
@config_option
@attached_option
@detached_option
@click.option(
    "-d",
    "--dry-run",
    is_flag=True,
    help="Show what would be sent. Uses no network and writes nothing.",
)
@online_option
@click.option("--explain", is_flag=True, help="With --dry-run: where each value came from.")
@click.option(
    "--from",
    "from_run",
    metavar="RUN",
    shell_complete=complete_run,
    help="Fill the step's input with what this run produced.",
)
@click.option("--name", help="A name for the run.")
@click.option("--save", metavar="NAME", help="Save the launch as a replay under this name.")
@force_option
@click.option(
    "--accept-changes",
    is_flag=True,
    help="With --save: replace a replay of that name that resolves to something else.",
)
@click.option(
    "--frozen",
    is_flag=True,
    help="With --save: launch only if the replay of that name resolves to the very same.",
)
@env_file_option
@catalog_option
@json_option
def run_command(
    step_id: str,
    overrides: tuple[str, ...],
    config: str | None,
    attached: str | None,
    detached: str | None,
    from_run: str | None,
    name: str | None,
    save: str | None,
    env_file: Path | None,
    catalog: tuple[Path, ...],
    **mode: Any,
) -> int:
    """Run a step: here, or where an env profile says.

    Neither -r nor -b runs it here, attached. Values of the config are changed by key=value, typed
    as YAML; run.env.KEY=VALUE changes the profile for this launch alone.
    """
    from ..selection import Selection

    profile = chosen_profile(attached, detached)
    if mode["accept_changes"] and mode["frozen"]:
        raise UsageError("--accept-changes and --frozen exclude each other.", fix="Give one.")
    if (mode["accept_changes"] or mode["frozen"]) and save is None:
        raise UsageError(
            "--accept-changes and --frozen compare with a saved launch, and none is named.",
            fix="Add --save NAME, or launch the saved one: tunedeck replay NAME --frozen",
        )
    selection = Selection(
        step=step_id,
        config=config,
        overrides=overrides,
        profile="local" if profile is None else profile,
        env_file=env_file,
        catalog=catalog,
        name=name,
        from_run=from_run,
        detached=detached is not None,
    )
    return run_selection(selection, Mode(attach=detached is None, **mode), save=save)


def run_selection(selection: Selection, mode: Mode, *, save: str | None = None) -> int:
    """Preview or launch a selection, print as `mode` says, and return the exit code."""
    from ..catalog import load_catalog

    catalog = load_catalog(selection.catalog)
    step = catalog.find(selection.step)
    if step.launch.kind == "builtin":
        return _run_builtin(step.id, selection, mode)
    from ..prepare import prepare
    from ..replays.files import replay_file

    if save is not None:
        replay_file(save, locations.replays_dir())  # refuses what is no name
    online = mode.online or not mode.dry_run
    prepared = asyncio.run(prepare(selection, online=online, catalog=catalog))
    if mode.dry_run:
        from .preview import print_preview

        print_preview(prepared, explain=mode.explain, as_json=mode.as_json)
        return exit_code_of(prepared.findings)
    return launch_prepared(prepared, mode, save=save)


def launch_prepared(prepared: Prepared, mode: Mode, *, save: str | None = None) -> int:
    """Send what was prepared, unless a finding blocks it, and follow it if `mode` says so."""
    from ..backends.base import TellsUploads
    from ..launch import launch
    from ..runs.registry import Registry
    from .follow import follow_run
    from .output import line, note, print_findings, print_json
    from .transfer import TransferLine

    print_findings(f for f in prepared.findings if f.severity != "info")
    for text in prepared.plan.notes:
        note(text)
    if not mode.force and (code := exit_code_of(prepared.findings)):
        note("Nothing was submitted. Mend the errors above, or pass --force.")
        return code
    registry = Registry()
    if save is not None:
        _save(prepared, save, mode)
    progress = TransferLine("Uploading")
    if isinstance(prepared.backend, TellsUploads):
        prepared.backend.tell_uploads(progress.show)
    sending = launch(
        prepared.plan, prepared.submission, prepared.backend, registry, forced=mode.force
    )
    try:
        record = asyncio.run(sending)
    except KeyboardInterrupt:
        progress.clear()
        run_id = prepared.plan.run_id
        note(f"{run_id} ({prepared.plan.name}) was being submitted.")
        note(f"  Did it arrive? tunedeck runs show {run_id}")
        note(f"  Cancel it:     tunedeck runs cancel {run_id}")
        raise
    finally:
        progress.clear()
    if mode.attach:
        return follow_run(record, registry, as_json=mode.as_json)
    if mode.as_json:
        print_json(
            {
                "run_id": record.run_id,
                "job_id": record.job_id,
                "backend": record.backend,
                "state": record.state,
            }
        )
    else:
        line(f"Submitted {record.run_id} ({record.name}) to {record.profile}.")
        note(f"Watch it:  tunedeck runs logs -f {record.run_id}")
        note(f"Cancel it: tunedeck runs cancel {record.run_id}")
    return ExitCode.OK


def _save(prepared: Prepared, name: str, mode: Mode) -> None:
    """Save the launch as a replay, or hold it to the one of that name."""
    from ..errors import NotFoundError
    from ..replays.replay import changes_since, load_replay, save_replay

    try:
        saved = load_replay(name)
    except NotFoundError:
        if mode.frozen:
            raise
        save_replay(prepared.plan.to_json(), name)
        return
    changes = changes_since(saved, prepared.plan)
    if changes and not mode.accept_changes:
        raise UsageError(
            f"The replay '{name}' resolves to something else: "
            + ", ".join(change.key for change in changes[:8])
            + (" …" if len(changes) > 8 else ""),
            fix="Pass --accept-changes to replace it, or choose another name with --save.",
        )
    if changes:
        save_replay(prepared.plan.to_json(), name, force=True)


def _run_builtin(step_id: str, selection: Selection, mode: Mode) -> int:
    if step_id == "env/env_toml":
        from .env_init import run_generator

        return run_generator(
            selection.config or "lepton",
            selection.overrides,
            dry_run=mode.dry_run,
            as_json=mode.as_json,
        )
    raise UsageError(
        f"{step_id} has no command of its own in this version.",
        fix="See the steps there are: tunedeck steps list",
    )
