"""The command of a plan: one list of words, the same for the preview and for what is executed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from .plan import Launch


def command_words(
    launch: Launch,
    profile_values: Mapping[str, Any],
    *,
    python: str,
    config: str,
    torchrun: Sequence[str],
) -> tuple[str, ...]:
    """The words that start a plan's processes on one node.

    A profile's `setup_lines`, `startup_commands` and `run_command` are shell text, so with any of
    them it is one bash script; else it is the interpreter itself.

    Args:
        launch: how the step's processes are started.
        profile_values: a `run_command` in it is the whole command, with the fields `{script}`
            (what an interpreter is to run) and `{config}`.
        python: the interpreter.
        config: the path of the resolved config where the command runs.
        torchrun: torchrun's own options: rendezvous and processes a node.
    """
    script = script_words(launch)
    setup = [
        line
        for key in ("setup_lines", "startup_commands")
        for line in as_list(profile_values.get(key))
    ]
    if launch.workdir:
        setup.append(f"cd {shlex.quote(launch.workdir)}")
    if template := str(profile_values.get("run_command") or launch.command):
        text = template.replace("{script}", shlex.join(script))
        setup.append(text.replace("{config}", shlex.quote(config)))
        return ("bash", "-c", _script(setup))
    if launch.kind == "torchrun" and launch.world_size > 1:
        # The trainer's own way to start torchrun spares a log the launcher's traceback.
        own = launch.module.startswith("tunedeck.")
        launcher = "tunedeck.trainer.torchrun" if own else "torch.distributed.run"
        script = ("-m", launcher, *torchrun, *script)
    words = (python, *script, "--config", config)
    return ("bash", "-c", _script([*setup, f"exec {shlex.join(words)}"])) if setup else words


def script_words(launch: Launch) -> tuple[str, ...]:
    """What an interpreter is told to run: a module by name, or the file of a foreign step."""
    target = (launch.module,) if launch.module.endswith(".py") else ("-m", launch.module)
    return (*target, *launch.args)


def as_list(value: Any) -> list[str]:
    """A key that takes a list takes a single value as well."""
    if value is None:
        return []
    return [str(item) for item in (value if isinstance(value, list | tuple) else [value])]


def _script(lines: Sequence[str]) -> str:
    return lines[0] if len(lines) == 1 else "\n".join(["set -e", *lines])
