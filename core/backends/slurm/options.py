"""The `#SBATCH` lines of a plan: each profile key as the option that sbatch knows it by."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from ...command import as_list
from ...env.rules.walltime import slurm_seconds
from ...errors import UsageError
from ...plan import Plan

DEFAULT_REQUEUES = 3
"""How often a run that saved before its time limit goes on, where the profile does not say."""

LOG = "log.txt"

_TEXT_OPTIONS = (
    *("account", "qos", "reservation", "constraint", "nodelist", "exclude"),
    *("mem", "time", "array", "dependency"),
)
_LINE = re.compile(r"^#SBATCH --([a-z-]+)", re.MULTILINE)
_VARIABLES = {
    "time": ("TIMELIMIT",),
    "array": ("ARRAY_INX",),
    "mem": ("MEM_PER_NODE", "MEM_PER_CPU", "MEM_PER_GPU"),
    "requeue": ("REQUEUE", "NO_REQUEUE"),
    "no-requeue": ("REQUEUE", "NO_REQUEUE"),
}
"""Options whose variables for sbatch are not their own names in capitals, after `SBATCH_`."""

_UNSAFE_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_TASKS = re.compile(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?")
_MOST_TASKS = 10_000
_MOST_WARNING_S = 120


def sbatch_options(plan: Plan, run_dir: str) -> dict[str, str | None]:
    """Option → value, None for an option without one; `additional_parameters` come last and win.

    Raises:
        UsageError: if a value cannot stand on a line, or a parameter is no option's name.
    """
    values = plan.profile_values
    options: dict[str, str | None] = {
        "job-name": job_name(plan),
        "comment": comment_of(plan.run_id),
        "partition": partition(plan),
        "nodes": str(plan.launch.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": _text(values.get("cpus_per_task")),
        **_gpus(plan),
        **{name: _text(values.get(name)) for name in _TEXT_OPTIONS},
        "signal": warning_signal(values),
        "output": f"{run_dir}/task_%a/{LOG}" if values.get("array") else f"{run_dir}/{LOG}",
        "open-mode": "append",
        "chdir": run_dir,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if values.get("exclusive"):
        options["exclusive"] = None
    options["requeue" if max_requeues(values) else "no-requeue"] = None
    options.update(_additional(plan))
    for name, value in options.items():
        if value is not None and ("\n" in value or "\r" in value):
            raise UsageError(
                f"The value of --{name} goes over more than one line.",
                fix=f"Write it on one line in profile '{plan.profile}'.",
            )
    return options


def sbatch_lines(options: Mapping[str, str | None]) -> list[str]:
    """The options as lines of a script. Slurm reads quotes there, and no variables."""
    return [
        f"#SBATCH --{name}" if value is None else f"#SBATCH --{name}={shlex.quote(value)}"
        for name, value in options.items()
    ]


def line_without_overrides(script: str) -> str:
    """A shell line after which a script's own options count.

    Sites and people set `SBATCH_ACCOUNT` and its like in their login scripts, and sbatch lets those
    win over a script's lines. They stay where the script says nothing.
    """
    names = [
        f"SBATCH_{variable}"
        for option in _LINE.findall(script)
        for variable in _VARIABLES.get(option, (option.upper().replace("-", "_"),))
    ]
    return f"unset {' '.join(names)}"


def array_tasks(values: Mapping[str, Any]) -> list[int]:
    """The numbers of an array's tasks, as sbatch reads `0-7%2`, `1,3,5` and `0-15:4`.

    Raises:
        UsageError: if sbatch would not read it.
    """
    text = _text(values.get("array"))
    found: set[int] = set()
    for part in (text or "").partition("%")[0].split(",") if text else ():
        match = _TASKS.fullmatch(part.strip())
        if match is None or int(match[2] or match[1]) - int(match[1]) > _MOST_TASKS:
            raise UsageError(
                f"array is '{text}', which sbatch does not read.",
                fix="Write it like 0-7, 0-7%2 (two at a time), 1,3,5 or 0-15:4.",
            )
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1)))
    return sorted(found)


def job_name(plan: Plan) -> str:
    """The run's name and id; the name alone where jobs of one name wait for each other."""
    name = _UNSAFE_NAME.sub("-", plan.name).strip("-") or "tunedeck"
    singleton = "singleton" in str(plan.profile_values.get("dependency") or "")
    return name if singleton else f"{name}-{plan.run_id}"


def comment_of(run_id: str) -> str:
    """The word in a job's comment by which its run is found."""
    return f"tunedeck:{run_id}"


def partition(plan: Plan) -> str | None:
    """That of attached or of detached runs, where the profile tells them apart."""
    key = "batch_partition" if plan.selection.get("detached") else "run_partition"
    return _text(plan.profile_values.get(key)) or _text(plan.profile_values.get("partition"))


def max_requeues(values: Mapping[str, Any]) -> int:
    """How often the job may be queued again."""
    wanted = values.get("max_requeues")
    return DEFAULT_REQUEUES if wanted is None else int(wanted)


def warning_signal(values: Mapping[str, Any]) -> str:
    """When the script is told that its time is nearly up: two minutes before, or a fifth of it."""
    if values.get("signal"):
        return str(values["signal"])
    seconds = slurm_seconds(str(values.get("time") or ""))
    if seconds is None:
        return f"B:USR1@{_MOST_WARNING_S}"
    return f"B:USR1@{max(1, min(_MOST_WARNING_S, seconds // 5))}"


def _gpus(plan: Plan) -> dict[str, str | None]:
    if gres := _text(plan.profile_values.get("gres")):
        return {"gres": gres}
    count = plan.launch.gpus_per_node
    return {"gpus-per-node": str(count)} if count else {}


def _additional(plan: Plan) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for key, value in (plan.profile_values.get("additional_parameters") or {}).items():
        name = str(key).strip("-").replace("_", "-")
        if not _OPTION.fullmatch(name):
            raise UsageError(
                f"'{key}' in additional_parameters is no long option of sbatch.",
                fix='Write its name without the dashes, for example mail-type = "END".',
            )
        if name in ("clusters", "cluster"):
            raise UsageError(
                "A job that additional_parameters sends to another cluster cannot be followed.",
                fix="Name a login host of that cluster as 'host', in a profile of its own.",
            )
        if value is None or value is False:
            continue
        found[name] = None if value is True else str(value)
    if found.get("comment"):  # the run must still be found by it
        found["comment"] = f"{found['comment']} {comment_of(plan.run_id)}"
    return found


def _text(value: Any) -> str | None:
    words = as_list(value)
    return ",".join(words) if words and any(words) else None
