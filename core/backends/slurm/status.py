"""What has become of jobs, by the ladder squeue, scontrol, sacct, and the run's own last word.

The commands tell what they know on lines of one form, for any number of jobs in one round trip;
`judge` then decides. A record that Slurm has purged must mean neither 'running' nor 'cancelled'.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import ReachError
from ...states import RunState, Status
from ..ending import PREEMPTED, SAVED, SIGNALLED
from .script import SECRETS, SENTINEL
from .shell import AWAY

_LIVE = {
    **dict.fromkeys(("RUNNING", "SUSPENDED", "STOPPED", "RESIZING"), RunState.RUNNING),
    **dict.fromkeys(("COMPLETING", "SIGNALING", "STAGE_OUT"), RunState.STOPPING),
    "CONFIGURING": RunState.STARTING,
}
_ENDED = {
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
_LAST_SIGNAL = 64
_CLEANING_UP_S = 180.0
"""How long Slurm may take over a job that has ended before its own last word counts. A node that
is down, or an epilog that hangs, keeps a job in COMPLETING."""

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
        reader = _READERS.get(kind)
        if reader is not None:
            reader(found, rest)
    return found


def judge(seen: Seen) -> Status:
    """The state of a job from everything that is known of it.

    Raises:
        ReachError: if nothing is, and not everyone who may know could be asked.
    """
    word = seen.word
    if word in _ENDED or (not word and seen.sentinel) or _ends_without_more_words(seen):
        return _ended(seen)
    if not word and seen.unanswered:
        raise ReachError(
            f"Slurm cannot tell what has become of the job: {seen.unanswered}",
            fix="Its accounting may be down for a moment. Try again.",
        )
    if not word:
        return Status(RunState.LOST, "", "Slurm has purged its record, and the job left no word")
    state = _LIVE.get(word, RunState.QUEUED)
    started = seen.started_at if state is RunState.RUNNING else None
    return Status(state, word, seen.reason, started_at=started)


def _ends_without_more_words(seen: Seen) -> bool:
    """Whether a job that Slurm still cleans up is known to have ended, and how.

    A good end is one whatever follows. A bad one may yet turn out to be a node's failure, a limit,
    or a job that is queued again: that is Slurm's to say, unless it takes too long over it.
    """
    last = seen.sentinel
    if seen.word != "COMPLETING" or last is None or last["terminated"]:
        return False
    waited_s = (seen.asked_at or 0.0) - last["ended_at"]
    return bool(last["exit_code"] == 0 or waited_s > _CLEANING_UP_S)


def _ended(seen: Seen) -> Status:
    last = seen.sentinel or {}
    code = last.get("exit_code", seen.exit_code)
    state, reason = _fate(seen, code)
    return Status(
        state,
        seen.word or f"exit {code}",
        reason,
        exit_code=code,
        started_at=last.get("started_at", seen.started_at),
        ended_at=last.get("ended_at", seen.ended_at),
    )


def _fate(seen: Seen, code: int | None) -> tuple[RunState, str]:
    if seen.word == "CANCELLED":
        return RunState.CANCELLED, seen.reason or "cancelled"
    if code == 0 and seen.word in ("", "COMPLETED", "COMPLETING"):
        return RunState.SUCCEEDED, ""
    reason = _ENDED.get(seen.word, "")
    last = seen.sentinel or {}
    if last.get("lost"):
        reason = f"a node of the job failed: {last['lost']} does not answer any more"
    if code == PREEMPTED:
        return RunState.PREEMPTED, f"{reason}; {SAVED}" if reason else SAVED
    if seen.word == "PREEMPTED":
        return RunState.PREEMPTED, reason
    if seen.word == "COMPLETED":
        return RunState.SUCCEEDED, ""
    if not reason and last.get("terminated"):
        reason = "ended by Slurm: cancelled, or out of time"
    if not reason and code is not None and SIGNALLED < code <= SIGNALLED + _LAST_SIGNAL:
        reason = f"killed by signal {code - SIGNALLED}"
    return RunState.FAILED, reason or f"exit code {code}"


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
    live = [word for word in words if word not in _ENDED]
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
