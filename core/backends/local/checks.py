"""What this machine must have before a plan is started on it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterable

from ...findings import Edit, Finding, Fix
from ...hardware import local_gpus
from ...plan import Plan
from ...text import counted

TRAINER_NEEDS = ("torch", "transformers", "peft", "safetensors", "datasets")
"""Packages of the extra `train` without which the trainer cannot start."""

_PROBE = (
    "import importlib.util, sys\n"
    "print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))"
)
_PROBE_LIMIT_S = 20


def check_machine(plan: Plan, python: str) -> list[Finding]:
    """All findings about this machine for a plan that would run with the interpreter `python`."""
    return [*_nodes(plan), *_gpus(plan), *_packages(plan, python)]


def _nodes(plan: Plan) -> Iterable[Finding]:
    if plan.launch.nodes > 1:
        yield Finding(
            "error",
            f"The plan asks for {plan.launch.nodes} nodes; this machine is one.",
            profile=plan.profile,
            key="nodes",
            fix=Fix("Set run.env.nodes=1, or use a profile of a cluster.", Edit("set", "nodes", 1)),
        )


def _gpus(plan: Plan) -> Iterable[Finding]:
    wanted = plan.launch.gpus_per_node
    if wanted and wanted > (found := len(local_gpus())):
        yield Finding(
            "error",
            f"The plan asks for {counted(wanted, 'GPU')}; this machine shows {found}.",
            profile=plan.profile,
            key="gpus_per_node",
            fix=Fix(
                f"Set run.env.gpus_per_node={found}, or check CUDA_VISIBLE_DEVICES and nvidia-smi.",
                Edit("set", "gpus_per_node", found),
            ),
        )


def _packages(plan: Plan, python: str) -> Iterable[Finding]:
    """The trainer's packages are there, found without importing any of them."""
    if not plan.launch.trains or _may_change(plan):
        return
    try:
        missing = _missing(python)
    except (OSError, subprocess.SubprocessError) as error:
        text = f"{python} does not run: {error}"
        fix = Fix(f"Correct 'venv' in the profile, or leave it out to use {sys.executable}.")
        yield Finding("error", text, profile=plan.profile, key="venv", fix=fix)
        return
    if missing:
        yield Finding(
            "error",
            f"Training on this machine needs packages that {python} lacks: {', '.join(missing)}.",
            fix=Fix(f"{python} -m pip install 'tunedeck[train]'"),
        )


def _may_change(plan: Plan) -> bool:
    """Whether shell lines run first, which may load a module or install what is missing."""
    return any(plan.profile_values.get(key) for key in ("setup_lines", "startup_commands"))


def _missing(python: str) -> list[str]:
    if python == sys.executable:
        return [name for name in TRAINER_NEEDS if importlib.util.find_spec(name) is None]
    done = subprocess.run(
        [python, "-c", _PROBE, "tunedeck", *TRAINER_NEEDS],
        capture_output=True,
        text=True,
        timeout=_PROBE_LIMIT_S,
        check=True,
    )
    return done.stdout.split()
