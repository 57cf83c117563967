"""`tunedeck doctor`: what works here, what does not, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import click

from .complete import complete_profile
from .options import env_file_option, examples, json_option


@click.command(
    epilog=examples("""
    tunedeck doctor
    tunedeck doctor slurm_peft_automodel
    """),
)
@click.argument("profile", required=False, shell_complete=complete_profile)
@env_file_option
@json_option
def doctor(profile: str | None, env_file: Path | None, as_json: bool) -> int:
    """Check the installation, the folders, tokens, and whether PROFILE's backend can be reached."""
    from ..doctor import examine
    from ..findings import exit_code_of
    from .output import MARKS, line, print_json

    found = examine(profile, env_file)
    if as_json:
        print_json({"findings": [finding.to_json() for finding in found]})
    else:
        marks = {**MARKS, "info": ("✓", None)}
        for finding in found:
            mark, color = marks[finding.severity]
            line(f"{mark} {finding.message}", fg=color)
            if finding.fix:
                line(f"  {finding.fix.words}")
    return exit_code_of(found)
