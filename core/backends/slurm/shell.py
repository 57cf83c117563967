"""Running Slurm's commands on a machine, and telling its refusals apart."""

from __future__ import annotations

from ...errors import ReachError, TunedeckError, UsageError
from ...ssh import Done, Machine

NO_SLURM = 69
"""What `FIND_SLURM` exits with: EX_UNAVAILABLE of sysexits(3)."""

FIND_SLURM = f"""\
if ! command -v sbatch > /dev/null && [ -r /etc/profile ]; then . /etc/profile > /dev/null 2>&1; fi
if ! command -v sbatch > /dev/null; then exit {NO_SLURM}; fi
if [ -n "${{SLURM_JOB_ID:-}}" ]; then
  for name in "${{!SLURM_@}}"; do [ "$name" = SLURM_CONF ] || unset "$name"; done
fi
export SLURM_TIME_FORMAT=%s
"""
"""Sites put Slurm on the PATH of login shells; ours is none.

Where we are inside a job ourselves, its limits and its count of restarts must not reach the new
one: sbatch hands its environment on.
"""

AWAY = (
    "Unable to contact slurm controller",
    "slurm_load_jobs error: Unable",
    "Socket timed out",
    "Connection refused",
    "Connection timed out",
    "Zero Bytes were transmitted",
    "Slurm controller is not responding",
)
"""What Slurm's commands say where its controller does not answer them."""


async def run_slurm(machine: Machine, script: str) -> Done:
    """Run a script that uses Slurm's commands.

    Raises:
        UsageError: if Slurm is not there.
        ReachError: if the machine, or Slurm's controller behind it, does not answer.
    """
    done = await machine.run(FIND_SLURM + script)
    if done.code == NO_SLURM:
        raise UsageError(
            f"There is no sbatch on the PATH of {machine.name}.",
            fix="Name a login node of the cluster as 'host', or put Slurm's bin folder on the "
            "PATH in ~/.bashrc over there.",
        )
    raise_if_away(done.err, machine)
    return done


def raise_if_away(text: str, machine: Machine) -> None:
    """Raise if what was said on stderr means that Slurm's controller does not answer.

    Raises:
        ReachError: then.
    """
    if any(words in text for words in AWAY):
        raise ReachError(
            f"Slurm's controller does not answer on {machine.name}: {last_line(text)}",
            fix="It may be down for a moment; jobs go on without it. Try again.",
        )


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def refused(machine: Machine, done: Done, doing: str) -> TunedeckError:
    """The error for a script that failed for a reason of its own."""
    first = next((line.strip() for line in done.err.splitlines() if line.strip()), "")
    return TunedeckError(f"{doing} on {machine.name} failed: {first or f'exit code {done.code}'}")
