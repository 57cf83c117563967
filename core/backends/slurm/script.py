"""The batch script of a plan, to be read by people: shell-quoted, with secrets nowhere in it.

`job.sh` beside this file is the whole script with `@names@` where a plan decides. Slurm runs
it on the first node; there it starts one task a node with srun, inside the container where there is
one, and that task is the same file again.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle import requirements
from ...command import as_list, script_words
from ...plan import Plan
from ..layout import Layout
from ..node_shell import CONFIG_MARK, command_text, node_command, tell_processes
from .container import container_words, srun_options
from .options import max_requeues, sbatch_lines, sbatch_options, warning_signal

SECRETS = "secrets.sh"
SENTINEL = "exit.json"
SCRIPT = "job.sh"
CONFIG = "config.yaml"
RESUME_CONFIG = "resume.yaml"

_TEMPLATE = Path(__file__).with_name("job.sh")
_NAME = re.compile(r"@([a-z_]+)@")
_SIGNAL = re.compile(r"(?:[BR]+:)?(?:SIG)?([A-Z0-9]+)")


@dataclass(frozen=True, slots=True)
class Script:
    """The text, the command that its nodes run, and the environment that it sets."""

    text: str
    command: tuple[str, ...]
    env: Mapping[str, str]


def render_script(plan: Plan, layout: Layout, *, checkpoints: str | None) -> Script:
    """The script of a plan.

    Args:
        plan: the plan.
        layout: where everything lies over there.
        checkpoints: the folder of the run's checkpoints over there; None if it makes none.

    Raises:
        UsageError: if a profile value cannot be written as an option.
    """
    values, run_dir = plan.profile_values, layout.run_dir
    env = _environment(plan, layout)
    command = _command(plan, layout, f"{run_dir}/{CONFIG}")
    parts = {
        "options": "\n".join(sbatch_lines(sbatch_options(plan, run_dir))),
        "about": f"{plan.step} as {plan.run_id} on {plan.launch.shape}. Written by tunedeck.",
        "run_dir": shlex.quote(run_dir),
        "own_dir": "$base/task_$SLURM_ARRAY_TASK_ID" if values.get("array") else "$base",
        "max_requeues": str(max_requeues(values)),
        "exports": _lines(f"export {name}={shlex.quote(value)}" for name, value in env.items()),
        "startup": _lines(_startup(plan, layout), indent="  "),
        "command": _lines([command_text(_command(plan, layout, CONFIG_MARK))], indent="  "),
        "tell": _lines(tell_processes(plan), indent="      "),
        "signals": _signals(values),
        "resume": _lines(_resume(checkpoints, run_dir)),
        "setup": _lines(_setup(values), indent="  "),
        "srun": shlex.join(["--export=ALL", *srun_options(plan, layout)]),
        "container": "".join(f"{word} " for word in container_words(plan, layout)),
    }
    text = _NAME.sub(lambda match: parts[match[1]], _TEMPLATE.read_text(encoding="utf-8"))
    return Script(text, command, env)


def _environment(plan: Plan, layout: Layout) -> dict[str, str]:
    env = {
        **plan.env,
        "TUNEDECK_RUN_ID": plan.run_id,
        "PYTHONUNBUFFERED": "1",
    }
    if "-m" in script_words(plan.launch):
        env["PYTHONSAFEPATH"] = "1"
    return env


def _command(plan: Plan, layout: Layout, config: str) -> tuple[str, ...]:
    """What each node runs."""
    alone = ("--standalone",) if plan.launch.nodes == 1 else ()
    return node_command(
        layout.launch(plan),
        plan.profile_values,
        python=python_of(plan.profile_values),
        config=config,
        torchrun=(
            *("--nnodes", str(plan.launch.nodes), *alone),
            *("--nproc-per-node", str(plan.launch.nproc_per_node)),
        ),
    )


def python_of(values: Mapping[str, Any]) -> str:
    """The interpreter over there: of the profile's `venv`, else the one on the PATH."""
    venv = str(values.get("venv") or "")
    return posixpath.join(venv, "bin", "python") if venv else "python3"


def _startup(plan: Plan, layout: Layout) -> list[str]:
    """What a node does before the command: packages, the profile's own lines, then the code."""
    values, python = plan.profile_values, shlex.quote(python_of(plan.profile_values))
    lines = []
    if venv := values.get("venv"):
        lines.append(f'export PATH={shlex.quote(posixpath.join(venv, "bin"))}:"$PATH"')
    if extras := as_list(values.get("pip_extras")):
        lines.append(f"{python} -m pip install --quiet {shlex.join(extras)}")
    lines += as_list(values.get("startup_commands"))
    code = shlex.quote(layout.code)
    lines.append(
        f'export PYTHONPATH={code}:"$run_dir/site_$SLURM_NODEID${{PYTHONPATH:+:$PYTHONPATH}}"'
    )
    if plan.launch.is_ours:
        script = shlex.quote(f"{layout.code}/tunedeck/core/backends/provide.py")
        needs = shlex.join(requirements(plan.launch, plan.config))
        lines.append(f'{python} {script} "$run_dir/site_$SLURM_NODEID" {needs}')
    return lines


def _signals(values: Mapping[str, Any]) -> str:
    """The name of the signal that comes before the time limit."""
    found = _SIGNAL.match(warning_signal(values))
    return found[1] if found else "USR1"


def _resume(checkpoints: str | None, run_dir: str) -> list[str]:
    """A job that is queued again goes on from its last checkpoint, if it has come to one.

    A task of an array has checkpoints of its own, and a config that names them.
    """
    if checkpoints is None:
        return []
    inside = checkpoints.removeprefix(f"{run_dir}/")
    own = f'"$run_dir"/{shlex.quote(inside)}' if inside != checkpoints else shlex.quote(checkpoints)
    return [
        f'if [ "$attempt" -gt 0 ] && [ -e {own}/latest ]; then',
        f"  TUNEDECK_CONFIG=$run_dir/{RESUME_CONFIG}",
        f'  [ "$base" = "$run_dir" ] || sed "s|$base/|$run_dir/|" "$base/{RESUME_CONFIG}" '
        '> "$TUNEDECK_CONFIG"',
        "fi",
    ]


def _setup(values: Mapping[str, Any]) -> list[str]:
    return [*load_modules(values), *as_list(values.get("setup_lines"))]


def load_modules(values: Mapping[str, Any]) -> list[str]:
    """The line that loads the profile's modules, if it names any."""
    modules = as_list(values.get("modules"))
    return [f"module load {shlex.join(modules)}"] if modules else []


def _lines(lines: Any, indent: str = "") -> str:
    """Lines of a shell script; `:` where there is none, so that every place stays valid."""
    text = "\n".join(lines)
    return "\n".join(f"{indent}{line}" for line in text.splitlines()) or f"{indent}:"
