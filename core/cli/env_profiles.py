"""`tunedeck env rename` and `env delete`: a profile under another name, or out of its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ExitCode
from .env_print import print_mended, short
from .options import confirmed, env_file_option, examples, json_option, profile_argument, yes_option
from .output import note, print_json

if TYPE_CHECKING:
    from ..env.load import EnvFiles
    from ..env.profile_tables import Changed

_dry_run = click.option("-d", "--dry-run", is_flag=True, help="Show the diff and write nothing.")


@click.command(
    "rename",
    short_help="Give a profile another name.",
    epilog=examples("tunedeck env rename slurm_peft_automodel h100"),
)
@profile_argument
@click.argument("new")
@_dry_run
@env_file_option
@json_option
def rename(profile: str, new: str, dry_run: bool, env_file: Path | None, as_json: bool) -> int:
    """Give a profile another name; profiles that extend it follow. Keeps a backup."""
    from ..env.profile_tables import rename_profile

    changed = rename_profile(_files(env_file), profile, new)
    return _finish(changed, profile, dry_run=dry_run, as_json=as_json)


@click.command(
    "delete",
    short_help="Take a profile out of its file.",
    epilog=examples("tunedeck env delete slurm_curate --dry-run"),
)
@profile_argument
@yes_option
@_dry_run
@env_file_option
@json_option
def delete(profile: str, yes: bool, dry_run: bool, env_file: Path | None, as_json: bool) -> int:
    """Take a profile out of its file, unless others extend it. Keeps a backup."""
    from ..env.profile_tables import delete_profile

    changed = delete_profile(_files(env_file), profile)
    where = short(changed.files[0].path)
    if not confirmed(f"Take '{profile}' out of {where}?", yes=yes or dry_run):
        return ExitCode.OK
    return _finish(changed, profile, dry_run=dry_run, as_json=as_json)


def _files(env_file: Path | None) -> EnvFiles:
    from ..env.find import find_env_files
    from ..env.load import load_env_files

    return load_env_files(find_env_files(env_file=env_file))


def _finish(changed: Changed, profile: str, *, dry_run: bool, as_json: bool) -> int:
    from ..replays.replay import replays_on

    backups = [] if dry_run else changed.write()
    naming = replays_on(profile)
    if as_json:
        print_json(
            {
                "files": [str(one.path) for one in changed.files],
                "written": not dry_run,
                "backups": [str(path) for path in backups],
                "diff": changed.diff,
                "followed": list(changed.followed),
                "replays": naming,
            }
        )
        return ExitCode.OK
    print_mended(list(changed.files))
    if naming:
        note(f"Saved launches that name '{profile}': {', '.join(naming)}.")
    for path in backups:
        note(f"The file as it was is in {short(path)}.")
    return ExitCode.OK
