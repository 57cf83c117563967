"""Shell that the scripts of all jobs have in common: what a node runs, and telling it to save."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ..command import command_words
from ..plan import Launch, Plan

CONFIG_MARK = "__config__"
"""Stands in a command for the config, which the script names by a variable."""

_IN_THE_SCRIPT = ("setup_lines", "startup_commands")


def node_command(
    launch: Launch,
    profile_values: Mapping[str, Any],
    *,
    python: str,
    config: str,
    torchrun: Sequence[str],
) -> tuple[str, ...]:
    """What each node runs. The profile's own shell lines stand in the script, before it."""
    values = {key: value for key, value in profile_values.items() if key not in _IN_THE_SCRIPT}
    return command_words(launch, values, python=python, config=config, torchrun=torchrun)


def command_text(command: Sequence[str]) -> str:
    """A command as the script has it, with the config as a variable."""
    is_text = command[:2] == ("bash", "-c")
    text = command[2] if is_text else f"exec {shlex.join(command)}"
    return text.replace(CONFIG_MARK, '"$TUNEDECK_CONFIG"')


def tell_processes(plan: Plan) -> list[str]:
    """Signal the processes that train. Of torchrun, and of a shell, these are the children."""
    itself = 'kill -USR1 "$1" 2> /dev/null'
    children = 'cat "/proc/$1"/task/*/children 2> /dev/null | xargs -r kill -USR1 2> /dev/null'
    if plan.launch.kind == "command":
        return [itself, children]
    return [children if plan.launch.world_size > 1 else itself]
