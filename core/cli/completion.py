"""`tunedeck completion`: the script that teaches a shell our commands."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import ExitCode, UsageError
from .output import line, note

_START_UP = {
    "bash": 'eval "$(tunedeck completion bash)"',
    "zsh": 'eval "$(tunedeck completion zsh)"',
    "fish": "tunedeck completion fish | source",
}
_FILES = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/config.fish"}


_EPILOG = """\b
Examples:
  eval "$(tunedeck completion bash)"          in ~/.bashrc
  eval "$(tunedeck completion zsh)"           in ~/.zshrc
  tunedeck completion fish | source           in ~/.config/fish/config.fish
"""


@click.command(epilog=_EPILOG)
@click.argument("shell", required=False, type=click.Choice(list(_START_UP)))
def completion(shell: str | None) -> int:
    """Print the completion script of a shell: $SHELL, unless one is named.

    It completes commands, step ids, configs, config keys, profiles, runs and saved launches.
    """
    import os
    import sys

    from click.shell_completion import get_completion_class

    from .bash_completion import install
    from .main import cli

    install()

    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in _START_UP:
        raise UsageError(
            f"There is no completion for {shell or 'a shell that is not known'}.",
            fix=f"Name one of {', '.join(_START_UP)}: tunedeck completion bash",
        )
    kind = get_completion_class(shell)
    assert kind is not None
    line(kind(cli, {}, "tunedeck", "_TUNEDECK_COMPLETE").source())
    if sys.stdout.isatty():
        note(f"To have it in every shell, add this to {_FILES[shell]}:\n  {_START_UP[shell]}")
    return ExitCode.OK
