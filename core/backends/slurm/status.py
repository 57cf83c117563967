"""What is to be thought of a job from everything that is known of it.

A record that Slurm has purged must mean neither 'running' nor 'cancelled'.
"""

from __future__ import annotations

from ...errors import ReachError
from ...states import RunState, Status
from ..ending import PREEMPTED, SAVED, SIGNALLED
from .question import ENDED, Seen
from .reasons import in_words

_LIVE = {
    **dict.fromkeys(("RUNNING", "SUSPENDED", "STOPPED", "RESIZING"), RunState.RUNNING),
    **dict.fromkeys(("COMPLETING", "SIGNALING", "STAGE_OUT"), RunState.STOPPING),
    **dict.fromkeys(("CONFIGURING", "POWER_UP_NODE"), RunState.STARTING),
}
_HALTED = "it stands still: suspended by the cluster's administrators or for another job"
_LAST_SIGNAL = 64
_CLEANING_UP_S = 180.0
"""How long Slurm may take over a job that has ended before its own last word counts. A node that
is down, or an epilog that hangs, keeps a job in COMPLETING."""


def judge(seen: Seen) -> Status:
    """The state of a job from everything that is known of it.

    Raises:
        ReachError: if nothing is, and not everyone who may know could be asked.
    """
    word = seen.word
    if word in ENDED or (not word and seen.sentinel) or _ends_without_more_words(seen):
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
    reason = _HALTED if word in ("SUSPENDED", "STOPPED") else in_words(seen.reason)
    return Status(state, word, reason, started_at=started)


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
        return RunState.CANCELLED, _why_cancelled(seen.reason)
    if code == 0 and seen.word in ("", "COMPLETED", "COMPLETING"):
        return RunState.SUCCEEDED, ""
    reason = ENDED.get(seen.word, "")
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


def _why_cancelled(reason: str) -> str:
    """By whom, as sacct knows; Slurm's reason is else what the job was waiting for."""
    if reason == "DependencyNeverSatisfied":
        return f"cancelled by Slurm: {in_words(reason)}"
    return reason if reason.startswith("cancelled") else ""
