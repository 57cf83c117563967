"""The states of a run, one enum for all backends."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .errors import ExitCode


class RunState(StrEnum):
    """Where a run is in its life. The backend's own word is kept beside it, never instead of it."""

    DRAFT = "draft"
    SUBMITTING = "submitting"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    LOST = "lost"

    @property
    def terminal(self) -> bool:
        """Whether nothing more will happen to the run."""
        return self in _EXIT_CODES

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a command that followed a run to this state."""
        return _EXIT_CODES.get(self, ExitCode.NOT_FINISHED)


_EXIT_CODES = {
    RunState.SUCCEEDED: ExitCode.OK,
    RunState.FAILED: ExitCode.JOB_FAILED,
    RunState.LOST: ExitCode.JOB_FAILED,
    RunState.PREEMPTED: ExitCode.JOB_FAILED,
    RunState.CANCELLED: ExitCode.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Status:
    """What a backend says of a job at one moment.

    Attributes:
        state: the one enum.
        word: the backend's own word for it (`PENDING`, `SCHEDULING`, `exited`).
        reason: the backend's own reason, or the one that was found out.
        exit_code: the job's own exit code, once it is known.
        started_at, ended_at: Unix seconds, once they are known.
    """

    state: RunState
    word: str = ""
    reason: str = ""
    exit_code: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
