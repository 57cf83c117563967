"""What several commands take, said once: arguments, options, and the question before a loss."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent, indent

import click

from ..errors import UsageError
from .complete import (
    complete_config,
    complete_override,
    complete_profile,
    complete_run,
    complete_step,
)

run_argument = click.argument("query", metavar="RUN", shell_complete=complete_run)
step_argument = click.argument("step_id", metavar="STEP", shell_complete=complete_step)
profile_argument = click.argument("profile", shell_complete=complete_profile)
overrides_argument = click.argument(
    "overrides", nargs=-1, metavar="[key=value]...", shell_complete=complete_override
)
config_option = click.option(
    "-c",
    "--config",
    shell_complete=complete_config,
    help="A config of the step by name, or a path to a YAML file.",
)
attached_option = click.option(
    "-r",
    "--run",
    "attached",
    metavar="PROFILE",
    shell_complete=complete_profile,
    help="Run with this env profile and stay attached.",
)
detached_option = click.option(
    "-b",
    "--batch",
    "detached",
    metavar="PROFILE",
    shell_complete=complete_profile,
    help="Submit with this env profile and return. 'local' is this machine.",
)
online_option = click.option(
    "--online", is_flag=True, help="With --dry-run: ask the backend too (its preflight, its price)."
)
force_option = click.option(
    "--force", is_flag=True, help="Submit despite errors that preflight found."
)
env_file_option = click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Use this env file instead of those that are found; also TUNEDECK_ENV_FILE.",
)
catalog_option = click.option(
    "--catalog",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Another folder of steps. Repeatable; also TUNEDECK_STEPS.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def chosen_profile(attached: str | None, detached: str | None) -> str | None:
    """The profile that is named by -r or -b, if any.

    Raises:
        UsageError: if both are given.
    """
    if attached is not None and detached is not None:
        raise UsageError("-r and -b exclude each other.", fix="Give one of them.")
    return detached if attached is None else attached


def examples(lines: str) -> str:
    """The end of a command's help: commands that can be copied as they are."""
    return f"\b\nExamples:\n{indent(dedent(lines).strip(), '  ')}"


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether something may be lost: told by `--yes`, or asked on the terminal.

    Raises:
        UsageError: if nobody can be asked.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(
            f"{question} It has to be confirmed, and there is no terminal to answer on.",
            fix="Add --yes, or use a terminal.",
        )
    if click.confirm(question, err=True):
        return True
    click.echo("Nothing was deleted.", err=True)
    return False
