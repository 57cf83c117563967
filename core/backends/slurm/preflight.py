"""What a cluster says of a plan before anything is submitted, in one round trip."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...findings import Finding, Fix
from ...memory import GIB
from ...plan import Plan
from ...ssh import Machine
from ...submission import Submission
from .container import mount_sources, runtime
from .layout import job_root
from .options import line_without_overrides
from .refusals import sbatch_finding
from .shell import last_line, run_slurm
from .site import check_partition, check_python, check_shared, site_questions

_LITTLE_ROOM = 5 * GIB
_OLDEST = (20, 11)
_START = "to start at"


async def check_cluster(machine: Machine, plan: Plan, submission: Submission) -> list[Finding]:
    """All findings about a plan on its cluster.

    Nothing is left behind over there but the folder for jobs and a note that a node has seen it.

    Raises:
        UsageError: if there is no Slurm there.
        ReachError, AuthenticationError: if the host or Slurm's controller cannot be asked.
    """
    done = await run_slurm(machine, _question(plan, submission))
    said: dict[str, list[str]] = {}
    for line in done.out.splitlines():
        kind, _, text = line.partition("|")
        said.setdefault(kind, []).append(text)
    checks: tuple[Callable[[Plan, Mapping[str, Sequence[str]]], Iterator[Finding]], ...] = (
        _slurm_itself,
        _folder,
        _mounts,
        _runtime,
        check_partition,
        check_python,
        check_shared,
    )
    return [finding for check in checks for finding in check(plan, said)]


def _question(plan: Plan, submission: Submission) -> str:
    root = shlex.quote(job_root(plan.profile_values, plan.profile))
    lines = [
        'echo "V|$(sbatch --version)"',
        f"root={root}",
        'mkdir -p "$root" 2> /dev/null',
        'canary=$(mktemp "$root/.canary.XXXXXX" 2> /dev/null) && rm -f "$canary" || echo "W|no"',
        'echo "F|$(df -Pk "$root" 2> /dev/null | awk \'NR == 2 { print $4 }\')"',
    ]
    for source in mount_sources(plan):
        lines.append(f"[ -e {shlex.quote(source)} ] || echo {shlex.quote('M|' + source)}")
    kind = runtime(plan)
    if kind == "pyxis":
        lines.append("srun --help 2>&1 | grep -q -e --container-image || echo 'R|pyxis'")
    if kind == "apptainer":
        lines.append("command -v apptainer > /dev/null || echo 'R|apptainer'")
    if kind == "none" and (venv := plan.profile_values.get("venv")):
        lines.append(f"[ -x {shlex.quote(str(venv))}/bin/python ] || echo 'R|venv'")
    lines += site_questions(plan)
    script = (submission.script or "").replace(f"\n#SBATCH --chdir={_chdir(submission)}", "")
    lines += [
        "cd /tmp || cd /",
        line_without_overrides(script),
        "sbatch --test-only 2>&1 << 'TUNEDECK-SCRIPT' | sed 's/^/T|/'",
        script.rstrip("\n"),
        "TUNEDECK-SCRIPT",
    ]
    return "\n".join(lines)


def _chdir(submission: Submission) -> str:
    """The run's folder as its option says it; it is not there before the run is submitted."""
    return shlex.quote(submission.cwd or "")


def _slurm_itself(plan: Plan, said: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    version = said.get("V", [""])[0].rpartition(" ")[2]  # after `slurm`, Debian's `slurm-wlm`
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < _OLDEST:
        oldest = ".".join(f"{part:02d}" for part in _OLDEST)
        text = f"Slurm there is {version}; {oldest} is the oldest that was thought of."
        yield Finding("warning", text, profile=plan.profile)
    test = "\n".join(said.get("T", []))
    estimate = next((line for line in test.splitlines() if _START in line), None)
    if estimate is not None:
        words = estimate.removeprefix("sbatch: ")
        yield Finding("info", f"Slurm {version}: {words}", profile=plan.profile)
    else:
        yield sbatch_finding(test or "sbatch --test-only said nothing", plan.profile)


def _folder(plan: Plan, said: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    root = job_root(plan.profile_values, plan.profile)
    if "W" in said:
        yield Finding(
            "error",
            f"{root} on the cluster cannot be written to.",
            profile=plan.profile,
            key="remote_job_dir",
            fix=Fix("Choose a folder of yours on storage that all nodes share."),
        )
    free = said.get("F", [""])[0]
    if free.isdigit() and int(free) * 1024 < _LITTLE_ROOM:
        yield Finding(
            "warning",
            f"{root} on the cluster has {int(free) / (1 << 20):.1f} GiB free.",
            profile=plan.profile,
            key="remote_job_dir",
            fix=Fix("Free some room, or choose a folder on another file system."),
        )


def _mounts(plan: Plan, said: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    for source in said.get("M", []):
        yield Finding(
            "error",
            f"{source}, which the profile mounts, is not there on the cluster.",
            profile=plan.profile,
            key="mounts",
            fix=Fix("Correct the path, or make the folder."),
        )


def _runtime(plan: Plan, said: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    lacking = last_line("\n".join(said.get("R", [])))
    if lacking == "venv":
        yield Finding(
            "error",
            f"There is no {plan.profile_values.get('venv')}/bin/python on the cluster.",
            profile=plan.profile,
            key="venv",
            fix=Fix("Make it there: python3 -m venv VENV, then pip install 'tunedeck[train]'."),
        )
    elif lacking:
        yield Finding(
            "error",
            f"The cluster has no {lacking}, by which the profile runs its image.",
            profile=plan.profile,
            key="container_runtime",
            fix=Fix("Set container_runtime to what it has: pyxis, apptainer, or none with a venv."),
        )
