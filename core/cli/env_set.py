"""`tunedeck env set`: keys of a profile, set where it is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from ..errors import Place
from ..findings import exit_code_of
from .options import env_file_option, examples, json_option, profile_argument

_EPILOG = examples("""
  tunedeck env set slurm_base account=nlp partition=gpu
  tunedeck env set slurm_peft_automodel nodes=null       inherited again
""")


@click.command("set", short_help="Set keys of a profile in its file.", epilog=_EPILOG)
@profile_argument
@click.argument("overrides", nargs=-1, required=True, metavar="key=value...")
@click.option("-d", "--dry-run", is_flag=True, help="Show the diff and write nothing.")
@env_file_option
@json_option
def set_command(
    profile: str,
    overrides: tuple[str, ...],
    dry_run: bool,
    env_file: Path | None,
    as_json: bool,
) -> int:
    """Set keys of a profile where it is written; comments and everything else stay.

    Values are typed as YAML; key=null takes a key out, so that it is inherited again. A value that
    is wrong is said and not written.
    """
    from ..config.overrides import parse_override
    from ..env.edit import edit_profile
    from ..env.find import find_env_files
    from ..env.load import load_env_files
    from .env_print import print_findings
    from .output import line, note, print_json

    edited = edit_profile(load_env_files(find_env_files(env_file=env_file)), profile, overrides)
    changed = edited.mended.after != edited.mended.before
    given = [".".join(map(str, parse_override(text).path)) for text in overrides]
    # A rule may speak of a part of what was given, `mounts.0`.
    wrong = [
        one for one in edited.findings if any(f"{one.key}.".startswith(f"{key}.") for key in given)
    ]
    code = exit_code_of(wrong)
    if changed and not dry_run and not code:
        edited.mended.write()
    if as_json:
        print_json(
            {
                "file": str(edited.mended.path),
                "written": changed and not dry_run and not code,
                "diff": edited.mended.diff,
                "findings": [finding.to_json() for finding in edited.findings],
            }
        )
        return code
    if changed:
        line(edited.mended.diff)
    else:
        note(f"'{profile}' says that already.")
    found = wrong if code else list(edited.findings)
    if dry_run or code:  # the lines are those of a file that is not there
        found = [replace(one, place=Place(one.place.file)) for one in found]
    print_findings(found)
    if code and not dry_run:
        note("Nothing was written.")
    return code
