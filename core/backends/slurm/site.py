"""What preflight asks of a cluster beyond its folders: the partition, Python, a compute node."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence

from ...env.rules.walltime import clock, slurm_seconds
from ...findings import Finding, Fix
from ...plan import Plan
from ...text import counted
from .container import runtime
from .inventory import gpus_in
from .layout import job_root
from .options import partition
from .script import load_modules, python_of

Said = Mapping[str, Sequence[str]]

_FIELD = re.compile(r"(\w+)=(\S*)")
_LOOK = (
    "import importlib.util as u, sys; "
    "print('%d.%d' % sys.version_info[:2], u.find_spec('torch') is not None)"
)
_NOT_SEEN = 7
_TRUSTED_DAYS = 7
"""How long a folder that a node has seen counts as shared, before a node is asked again."""


def site_questions(plan: Plan) -> list[str]:
    """Shell lines that answer with `KIND|TEXT` lines. `$root` is the folder for jobs."""
    lines = [
        "scontrol show partition -o 2> /dev/null | sed 's/^/P|/'",
        "sinfo -h -o 'G|%R|%D|%G'",
        *_canary(plan),
    ]
    if runtime(plan) == "none" and plan.launch.trains:
        loads = "; ".join(load_modules(plan.profile_values)) or "true"
        python = shlex.quote(python_of(plan.profile_values))
        lines.append(
            f'echo "Y|$({{ type module || . /etc/profile; {loads}; }} > /dev/null 2>&1'
            f'; {python} -c {shlex.quote(_LOOK)} 2> /dev/null)"'
        )
    return lines


def _canary(plan: Plan) -> list[str]:
    """Whether a node sees the folder for jobs: where one is free at once, and not every time."""
    words = ["srun", "--immediate=5", "--quiet", "--nodes=1", "--ntasks=1", "--time=1"]
    values = {"partition": partition(plan), "account": plan.profile_values.get("account"),
              "qos": plan.profile_values.get("qos")}  # fmt: skip
    words += [f"--{name}={value}" for name, value in values.items() if value]
    place = re.sub(r"[^A-Za-z0-9_.-]+", "-", partition(plan) or "default")
    return [
        f'seen="$root/.tunedeck/seen_by_{place}" token="$root/.tunedeck/canary.$$"',
        f'if [ -z "$(find "$seen" -mtime -{_TRUSTED_DAYS} 2> /dev/null)" ] &&',
        '  { [ -d "$root/.tunedeck" ] || mkdir "$root/.tunedeck"; } 2> /dev/null &&',
        '  touch "$token" 2> /dev/null; then',
        f"  timeout 20 {shlex.join(words)} --chdir=/ bash -c "
        f'\'[ -e "$1" ] || exit {_NOT_SEEN}\' - "$token" > /dev/null 2>&1 < /dev/null',
        '  case $? in 0) touch "$seen" ;; ' + f"{_NOT_SEEN}) echo 'C|no' ;; esac",
        '  rm -f "$token"',
        "fi",
    ]


def check_shared(plan: Plan, said: Said) -> Iterator[Finding]:
    """Whether the nodes see what the login writes."""
    if "C" in said:
        root = job_root(plan.profile_values, plan.profile)
        yield Finding(
            "error",
            f"A compute node does not see {root}, which the login host writes to.",
            profile=plan.profile,
            key="remote_job_dir",
            fix=Fix("Choose a folder on storage that the login host and all nodes share."),
        )


def check_partition(plan: Plan, said: Said) -> Iterator[Finding]:
    """The limits of the partition: Slurm takes jobs that are over them, and never starts them."""
    rows = [dict(_FIELD.findall(line)) for line in said.get("P", ())]
    name = partition(plan)
    for row in rows:
        if row.get("PartitionName") != name if name else row.get("Default") != "YES":
            continue
        here = f"Partition {row['PartitionName']}"
        limit, wanted = slurm_seconds(row.get("MaxTime", "")), plan.profile_values.get("time")
        asked = slurm_seconds(str(wanted or ""))
        if limit and asked and asked > limit:
            yield _over(plan, "time", f"{here} runs jobs for {clock(limit)} at most, not {wanted}.")
        nodes = row.get("MaxNodes", "")
        if nodes.isdigit() and plan.launch.nodes > int(nodes):
            yield _over(plan, "nodes", f"{here} gives a job {counted(nodes, 'node')} at most.")
        if row.get("State", "UP") != "UP":
            yield _over(plan, "partition", f"{here} is {row['State']}: it starts no jobs now.")
        account = plan.profile_values.get("account")
        allowed = row.get("AllowAccounts", "ALL").split(",")
        denied = row.get("DenyAccounts", "").split(",")
        if account and (account in denied or ("ALL" not in allowed and account not in allowed)):
            yield _over(plan, "account", f"{here} takes no jobs of account {account}.")
        yield from _check_gpus(plan, row["PartitionName"], said)


def _check_gpus(plan: Plan, name: str, said: Said) -> Iterator[Finding]:
    wanted = 0 if plan.profile_values.get("gres") else plan.launch.gpus_per_node
    rows = [line.split("|") for line in said.get("G", ()) if line.split("|")[0] == name]
    most = max((gpus_in(row[2]) for row in rows if len(row) > 2), default=0)
    if rows and wanted > most:
        has = f"{counted(most, 'GPU')} a node at most" if most else "no GPUs that Slurm knows of"
        yield _over(plan, "gpus_per_node", f"Partition {name} has {has}; {wanted} are asked for.")


def check_python(plan: Plan, said: Said) -> Iterator[Finding]:
    """Python and torch over there, for a run without a container."""
    if "Y" not in said:
        return
    version, _, torch = said["Y"][0].partition(" ")
    venv = plan.profile_values.get("venv")
    python = python_of(plan.profile_values)
    key = "venv" if venv else "modules"
    fix = Fix("Name a venv that has what trains: pip install 'tunedeck[train]', venv = \"/…\".")
    if not version and not venv:  # one that is named and missing is told already
        text = f"There is no {python} on the login host's PATH."
        yield Finding("warning", text, profile=plan.profile, key=key, fix=fix)
    if version and tuple(map(int, version.split("."))) < (3, 11):
        text = f"{python} over there is Python {version}; 3.11 or newer is needed."
        yield Finding("error", text, profile=plan.profile, key=key, fix=fix)
    elif version and torch != "True":
        text = f"{python} over there has no torch."
        yield Finding("error" if venv else "warning", text, profile=plan.profile, key=key, fix=fix)


def _over(plan: Plan, key: str, text: str) -> Finding:
    fix = Fix("See what there is: tunedeck queue PROFILE")
    return Finding("error", text, profile=plan.profile, key=key, fix=fix)
