"""The entry point: which commands there are, and how each kind of failure ends.

Only click is imported here. A command's module is imported when the command runs, so that
`tunedeck --help` costs no more than click itself.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from ..errors import ExitCode, TunedeckError, UsageError
from .lazy import LazyGroup

_COMMANDS = {
    "steps": ("steps:steps", "List, show and run the steps of the catalog."),
    "env": ("env:env", "Generate, check and explain env files."),
    "runs": ("runs:runs", "List, watch, cancel and resume runs."),
    "queue": ("queue:queue", "Show a cluster's partitions and my jobs in its queue."),
    "replay": ("replay:replay", "Launch a saved launch again."),
    "replays": ("replay:replays", "List, show, save and delete saved launches."),
    "data": ("data:data", "Look at training data as the model will see it."),
    "chat": ("chat:chat", "Ask the base model and a run's result the same things."),
    "doctor": ("doctor:doctor", "Check the installation, the folders and a profile's reach."),
    "completion": ("completion:completion", "Print the completion script of a shell."),
}

_EPILOG = """\b
Examples:
  tunedeck steps run peft/automodel -c tiny          a LoRA fine-tune on this machine
  tunedeck steps run peft/automodel -c tiny -d       what it would do, and nothing else
  tunedeck runs list                                 what ran, what runs
"""

_READER_GONE = 128 + 13
"""The exit code of a program that SIGPIPE ended, which Python turns into an error."""


class _Commands(LazyGroup):
    """All commands, listed without being imported."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _version(ctx: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from ... import __version__

        click.echo(f"tunedeck {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands,
    lazy={name: target for name, (target, _) in _COMMANDS.items()},
    invoke_without_command=True,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version and exit.",
)
@click.option("--read-only", is_flag=True, help="The wizard, without submitting or cancelling.")
@click.option("--plain", is_flag=True, help="The wizard as plain prompts; also ACCESSIBLE=1.")
@click.pass_context
def cli(ctx: click.Context, read_only: bool, plain: bool) -> int:
    """Launch fine-tuning runs here, on Slurm or in a cloud, and repeat them with one command.

    Without a command it opens the wizard.
    """
    if ctx.invoked_subcommand is not None:
        if read_only or plain:
            ctx.fail("--read-only and --plain go with the wizard, which opens without a command.")
        return ExitCode.OK
    # By name: core depends on nothing of the wizard, which may be missing where it is not wanted.
    wizard = importlib.import_module("...tui.start", __package__)
    return int(wizard.start(read_only=read_only, plain=plain))


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with one of `ExitCode`, or 128 + n on a signal."""
    # Python has none where the shell closed it (`>&-`).
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Nothing escapes as a traceback."""
    stdout = sys.stdout
    if "_TUNEDECK_COMPLETE" in os.environ:
        from .bash_completion import install

        install()
    try:
        result = cli.main(args, prog_name="tunedeck", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        from .output import print_error

        context = error.ctx if isinstance(error, click.UsageError) else None
        command = context.command_path if context else "tunedeck"
        fix = f"See what it takes: {command} --help"
        print_error(UsageError(error.format_message(), fix=fix))
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 130
    except BrokenPipeError:
        # The reader has gone (`tunedeck … | head`). Point stdout elsewhere, or Python complains
        # again as it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_GONE
    except SystemExit:
        # Click saw it first: it muffles stdout and makes it a failure. Else it is completion's.
        if sys.stdout is stdout:
            raise
        return _READER_GONE
    except TunedeckError as error:
        from .output import print_error

        print_error(error)
        return error.exit_code
    except OSError as error:
        from .output import print_error

        print_error(TunedeckError(_os_error_text(error), fix=_os_error_fix(error)))
        return ExitCode.FAILURE
    except Exception as error:  # noqa: BLE001  # kept in a file, and told
        from ..crash import crash_report
        from .output import print_error

        print_error(crash_report(error))
        return ExitCode.FAILURE
    return result if isinstance(result, int) else ExitCode.OK


def _os_error_text(error: OSError) -> str:
    what = error.strerror or str(error)
    if _left_behind(error):
        return "The working folder is no longer there."
    return f"{error.filename}: {what}" if error.filename else what


def _os_error_fix(error: OSError) -> str:
    import errno

    if _left_behind(error):
        return "Go to another one: cd"
    if error.errno == errno.ENOSPC:
        return "Free some room on that disk, or set TUNEDECK_HOME to a folder on another one."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Change the permissions, or set TUNEDECK_HOME to a folder that you can write to."
    return ""


def _left_behind(error: OSError) -> bool:
    """Whether it is the working folder that is missing: Python names no file then."""
    return isinstance(error, FileNotFoundError) and error.filename is None
