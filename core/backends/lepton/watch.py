"""What has become of a job on Lepton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import TunedeckError
from ...states import RunState, Status
from ..base import Handle
from ..cloud.events import newest_of
from ..ending import with_exit_code
from ..suspend import as_suspended
from .client import Lepton

_STATES = {
    "Queueing": RunState.QUEUED,
    "Awaiting": RunState.QUEUED,
    "PendingRetry": RunState.QUEUED,
    "Starting": RunState.STARTING,
    "Restarting": RunState.STARTING,
    "Running": RunState.RUNNING,
    "Stopping": RunState.STOPPING,
    "Terminating": RunState.STOPPING,
    "Deleting": RunState.STOPPING,
    "Completed": RunState.SUCCEEDED,
    "Failed": RunState.FAILED,
    "Stopped": RunState.CANCELLED,
    "Deleted": RunState.LOST,
}
"""A word that is new to us counts as running: it is looked at again."""


async def status_of(lepton: Lepton, handle: Handle) -> Status:
    """The service's word, and of a job that has ended the exit code, by its own last word."""
    job = await lepton.job(handle.job_id)
    if job is None:
        return Status(RunState.LOST, "", "the service knows no such job any more")
    status = as_suspended(status_from(job), handle)
    if status.state in (RunState.QUEUED, RunState.STARTING):
        words = (status.reason, await _waits_for(lepton, handle))
        return replace(status, reason="; ".join(word for word in words if word))
    if status.state is RunState.SUCCEEDED:
        return with_exit_code(status, 0)
    if status.state is not RunState.FAILED:
        return status
    from .logs import exit_code

    return with_exit_code(status, await exit_code(lepton, handle, job))


def status_from(job: Mapping[str, Any]) -> Status:
    """What the service itself says of a job."""
    told = job.get("status") or {}
    word = str(told.get("state") or "")
    state = _STATES.get(word, RunState.RUNNING)
    reason = ""
    spec = job.get("spec") or {}
    wanted, ready = int(spec.get("parallelism") or 1), int(told.get("ready") or 0)
    if word == "Archived":
        state = _archived(told, spec)
    elif state is RunState.RUNNING and word == "Running" and ready < wanted:
        active = int(told.get("active") or 0)
        reason = f"{ready} of {wanted} replicas are up"
        state = RunState.STARTING if ready or active else RunState.RUNNING
    elif state is RunState.FAILED:
        reason = f"{told['failed']} of {wanted} replicas failed" if told.get("failed") else ""
    return Status(
        state,
        word,
        reason,
        started_at=seconds(told.get("creation_time")),
        ended_at=seconds(told.get("completion_time")) if state.terminal else None,
    )


async def _waits_for(lepton: Lepton, handle: Handle) -> str:
    """What holds a job up, such as an image that cannot be pulled; empty where it is not told."""
    try:
        return newest_of(await lepton.events(handle.job_id), "last_observed_time")
    except TunedeckError:
        return ""


def _archived(told: Mapping[str, Any], spec: Mapping[str, Any]) -> RunState:
    """How a job ended that is only history now."""
    if told.get("failed"):
        return RunState.FAILED
    if int(told.get("succeeded") or 0) >= int(spec.get("completions") or 1):
        return RunState.SUCCEEDED
    return RunState.CANCELLED if spec.get("stopped") else RunState.FAILED


def seconds(moment: Any) -> float | None:
    """Unix seconds of a moment that the service tells in seconds or milliseconds."""
    if not isinstance(moment, int | float) or moment <= 0:
        return None
    return moment / 1000 if moment > 1e11 else float(moment)
