"""Asking what has become of jobs: squeue, scontrol, sacct, and the run's own last word.

The commands tell what they know on lines of one form, for any number of jobs in one round trip.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..ending import SIGNALLED
from .script import SECRETS, SENTINEL
from .shell import AWAY

ENDED = {
    "COMPLETED": "",
    "CANCELLED": "cancelled",
    "FAILED": "",
    "TIMEOUT": "the time limit was reached",
    "DEADLINE": "the deadline was reached",
    "NODE_FAIL": "a node of the job failed",
    "BOOT_FAIL": "a node of the job did not boot",
    "OUT_OF_MEMORY": "out of memory: the job used more than was allotted to it (mem)",
    "PREEMPTED": "preempted by another job",
    "REVOKED": "revoked: it runs on another cluster",
}
"""Slurm's word for a job that has ended → why, where that says more than its exit code."""

_SACCT_LIMIT_S = 30
_TIMED_OUT = "124"
"""What timeout(1) ends with."""

_TASK = re.compile(r"[_+]")
_FIELD = re.compile(r"(\w+)=(\S+)")


@dataclass(slots=True)
class Seen:
    """What the commands say of one job.

    Attributes:
        word: Slurm's state, its first word; empty if no command knows the job.
        reason: Slurm's reason.
        exit_code, started_at, ended_at: by Slurm.
        sentinel: the run's own last word.
        unanswered: what a command said that could not tell whether it knows the job.
        secrets_left: whether its file of secrets is still there.
        asked_at: Unix seconds, by the clock over there.
    """

    word: str = ""
    reason: str = ""
    exit_code: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    sentinel: Mapping[str, Any] | None = None
    unanswered: str = ""
    secrets_left: bool = False
    asked_at: float | None = None
    tasks: list[str] = field(default_factory=list)


def question(jobs: Mapping[str, str]) -> str:
    """The script that asks about jobs: id → the run's folder."""
    ids = " ".join(jobs)
    folders = "\n".join(f"  {job}) folder={shlex.quote(folder)} ;;" for job, folder in jobs.items())
    return f"""\
echo "T|$(date +%s)"
known=$(squeue -h -j {",".join(jobs)} --states=all -o 'Q|%F|%T|%r|%S|%e')
printf '%s\\n' "$known"
missing=
for job in {ids}; do
  case "$known" in
    *"Q|$job|"*) ;;
    *)
      told=$(scontrol show job -o "$job" 2>&1)
      case "$told" in
        JobId=*) printf '%s\\n' "$told" | sed 's/^/C|/' ;;
        *'Invalid job id'* | *'not found'*) missing=$missing,$job ;;
        *)
          missing=$missing,$job
          printf '%s\\n' "$told" >&2
          told=${{told##*error: }}
          echo "U|$job|${{told:-scontrol says nothing}}"
          ;;
      esac
      ;;
  esac
  case $job in
{folders}
  esac
  set -- "$folder"/task_*/
  if [ -d "$1" ]; then  # an array: its last word is the worst of its tasks', once each has spoken
    said=$(for task; do tr -d '\\n' < "$task/{SENTINEL}" && echo; done 2> /dev/null)
    if [ "$(printf '%s' "$said" | grep -c '')" = $# ]; then
      worst=$(printf '%s\\n' "$said" | grep -v '"exit_code": 0,' | head -n 1)
      echo "X|$job|${{worst:-$(printf '%s\\n' "$said" | tail -n 1)}}"
    fi
  elif [ -s "$folder/{SENTINEL}" ]; then
    echo "X|$job|$(tr -d '\\n' < "$folder/{SENTINEL}")"
  fi
  if [ -e "$folder/{SECRETS}" ]; then echo "S|$job"; fi
done
if [ -n "$missing" ]; then
  told=$(timeout {_SACCT_LIMIT_S} sacct -X -P -n -j "${{missing#,}}" \\
    -o JobID,State,ExitCode,Start,End 2>&1)
  code=$?
  printf '%s\\n' "$told" | grep '|' | sed 's/^/A|/'
  [ "$code" = 0 ] || echo "D|$code|$(printf '%s\\n' "$told" | grep -v '|' | tail -n 1)"
fi
exit 0
"""


def answers(text: str, jobs: Sequence[str]) -> dict[str, Seen]:
    """What the script said, by job."""
    found = {job: Seen() for job in jobs}
    for line in text.splitlines():
        kind, _, rest = line.partition("|")
        if kind == "T":
            for seen in found.values():
                seen.asked_at = _moment(rest)
        if (reader := _READERS.get(kind)) is None:
            continue
        try:
            reader(found, rest)
        except ValueError:  # of a version or a wrapper that talks in another form
            for seen in found.values():
                seen.unanswered = f"'{line}' makes no sense"
    return found


def _from_squeue(found: dict[str, Seen], rest: str) -> None:
    job, word, reason, started, ended = rest.split("|")[:5]
    if (seen := found.get(job)) is None:
        return
    seen.tasks.append(word)
    seen.word = _of_all(seen.tasks)
    seen.reason = _telling(reason)
    seen.started_at, seen.ended_at = _moment(started), _moment(ended)


def _from_scontrol(found: dict[str, Seen], rest: str) -> None:
    facts = dict(_FIELD.findall(rest))
    if (seen := found.get(facts.get("ArrayJobId") or facts.get("JobId") or "")) is None:
        return
    seen.tasks.append(facts.get("JobState", ""))
    seen.word = _of_all(seen.tasks)
    seen.reason = (
        "" if facts.get("Reason") in (None, "None", "NonZeroExitCode") else facts["Reason"]
    )
    seen.exit_code = _code(facts.get("ExitCode", ""))
    seen.started_at = _moment(facts.get("StartTime", ""))
    seen.ended_at = _moment(facts.get("EndTime", ""))


def _from_sacct(found: dict[str, Seen], rest: str) -> None:
    job, state, code, started, ended = rest.split("|")[:5]
    if (seen := found.get(_TASK.split(job)[0])) is None or not state:
        return
    word, _, by = state.partition(" ")
    seen.tasks.append(word)
    seen.word = _of_all(seen.tasks)
    seen.reason = f"cancelled {by}" if by else ""
    seen.exit_code = _code(code)
    seen.started_at, seen.ended_at = _moment(started), _moment(ended)


def _unknown_to_scontrol(found: dict[str, Seen], rest: str) -> None:
    job, _, said = rest.partition("|")
    if job in found:
        found[job].unanswered = said


def _without_sacct(found: dict[str, Seen], rest: str) -> None:
    """A site without accounting ends sacct as well: that is an answer."""
    code, _, said = rest.partition("|")
    if code == _TIMED_OUT or any(words in said for words in (*AWAY, "talking to the database")):
        for seen in found.values():
            seen.unanswered = said or "sacct does not answer"


def _from_sentinel(found: dict[str, Seen], rest: str) -> None:
    job, _, text = rest.partition("|")
    if job in found:
        try:
            found[job].sentinel = json.loads(text)
        except ValueError:
            return  # of a disk that was full; Slurm's own word then counts


def _secrets_left(found: dict[str, Seen], rest: str) -> None:
    if rest in found:
        found[rest].secrets_left = True


_READERS = {
    "Q": _from_squeue,
    "C": _from_scontrol,
    "A": _from_sacct,
    "U": _unknown_to_scontrol,
    "D": _without_sacct,
    "X": _from_sentinel,
    "S": _secrets_left,
}


def _of_all(words: Sequence[str]) -> str:
    """One word for the tasks of an array: what still goes on, else what went worst."""
    live = [word for word in words if word not in ENDED]
    for word in ("RUNNING", "COMPLETING", *live):
        if word in live:
            return word
    return next((word for word in words if word != "COMPLETED"), words[0])


def _telling(reason: str) -> str:
    return "" if reason in ("None", "NonZeroExitCode") else reason


def _code(text: str) -> int | None:
    """Slurm's `CODE:SIGNAL` as a shell has it."""
    code, _, number = text.partition(":")
    if not code.isdigit():
        return None
    killed = number.isdigit() and int(number) and not int(code)
    return SIGNALLED + int(number) if killed else int(code)


def _moment(text: str) -> float | None:
    return float(text) if text.isdigit() else None
