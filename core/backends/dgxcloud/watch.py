"""What has become of a workload on Run:ai."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ...errors import TunedeckError
from ...states import RunState, Status
from ..base import Handle
from ..cloud.events import newest_of
from ..ending import with_exit_code
from ..suspend import as_suspended
from .client import RunAI

_STATES = {
    "Pending": RunState.QUEUED,
    "Creating": RunState.STARTING,
    "Initializing": RunState.STARTING,
    "Resuming": RunState.STARTING,
    "Updating": RunState.RUNNING,
    "Running": RunState.RUNNING,
    "Degraded": RunState.RUNNING,
    "Stopping": RunState.STOPPING,
    "Terminating": RunState.STOPPING,
    "Deleting": RunState.STOPPING,
    "Stopped": RunState.CANCELLED,
    "Completed": RunState.SUCCEEDED,
    "Failed": RunState.FAILED,
}
"""A phase that is new to us counts as running: it is looked at again."""

_WAITING = (RunState.QUEUED, RunState.STARTING)
_TELL_MORE = (*_WAITING, RunState.FAILED, RunState.SUCCEEDED, RunState.CANCELLED)


async def status_of(runai: RunAI, handle: Handle) -> Status:
    """The service's phase, and of a workload that has ended the exit code, by its last word."""
    told = await runai.workload(handle.data["kind"], handle.job_id)
    if told is None:
        return Status(RunState.LOST, "", "the service knows no such workload any more")
    status = status_from(told)
    if status.state in _TELL_MORE:
        status = status_from({**told, **await _more(runai, handle)})
    if status.state in _WAITING and not status.reason:
        return replace(status, reason=await _waits_for(runai, handle))
    if status.state is RunState.SUCCEEDED:
        return with_exit_code(status, 0)
    if status.state is not RunState.FAILED:
        return as_suspended(status, handle)
    from .logs import exit_code

    return with_exit_code(status, await exit_code(runai, handle))


def status_from(told: Mapping[str, Any]) -> Status:
    """What the service itself says of a workload. A phase new to us counts as running."""
    phase = str(told.get("actualPhase") or "")
    state = _STATES.get(phase, RunState.RUNNING if phase else RunState.STARTING)
    reason = str(told.get("phaseMessage") or told.get("phaseReason") or "")
    return Status(
        state,
        phase,
        reason,
        started_at=_moment(told.get("createdAt")),
        ended_at=_moment(told.get("completedAt")) if state.terminal else None,
    )


async def _more(runai: RunAI, handle: Handle) -> dict[str, Any]:
    """Why it waits or failed, and when it ended, which only the list of all kinds tells."""
    row = await runai.row(handle.job_id) or {}
    names = ("phaseMessage", "phaseReason", "completedAt")
    return {name: row[name] for name in names if row.get(name)}


async def _waits_for(runai: RunAI, handle: Handle) -> str:
    """What holds a workload up, such as an image that cannot be pulled; empty where untold."""
    try:
        return newest_of(await runai.events(handle.job_id), "createdAt")
    except TunedeckError:
        return ""


def _moment(text: Any) -> float | None:
    """Unix seconds; the service's clock is UTC where it does not say."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
