"""Putting a run on hold where it is, and having the same job go on.

Where a service can stop a job and start the same one again, that gives its machines back and keeps
its place, name and log. A run that has been put on hold counts as preempted: it has saved what it
could, and nothing of it goes on. `runs resume` continues the job itself; with changes it becomes a
new run from the last checkpoint, as any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ..errors import UsageError
from ..logs.spool import reopened
from ..states import RunState, Status

if TYPE_CHECKING:
    from ..backends.base import Backend, Handle
    from .record import RunRecord
    from .registry import Registry

MARK = "suspended"
"""In a handle's data: that it was told to stop in order to go on."""

REASON = "suspended; it goes on with: tunedeck runs resume {run_id}"


@runtime_checkable
class Suspends(Protocol):
    """A backend whose service can stop a job and start the same one again."""

    async def suspend(self, handle: Handle) -> Status:
        """Stop the job, and return once the service says that it has ended."""
        ...

    async def go_on(self, handle: Handle) -> Status:
        """Start it again; its status then."""
        ...


def is_suspended(record: RunRecord) -> bool:
    """Whether a run was put on hold and can go on in place."""
    held = bool((record.handle or {}).get(MARK))
    return record.state is RunState.PREEMPTED and held


def as_suspended(status: Status, handle: Handle) -> Status:
    """A status of a job that was stopped, as its handle has it: on hold rather than cancelled."""
    if status.state is not RunState.CANCELLED or not handle.data.get(MARK):
        return status
    reason = REASON.format(run_id=handle.run_id)
    return replace(status, state=RunState.PREEMPTED, reason=reason)


async def suspend(record: RunRecord, backend: Backend, registry: Registry) -> RunRecord:
    """Put a run on hold, and return its record once nothing of it goes on.

    Raises:
        UsageError: if its backend cannot, or the run has not been submitted yet.
        DeadlineError: if it goes on all the same.
    """
    handle = record.backend_handle
    if not isinstance(backend, Suspends):
        raise UsageError(
            f"Runs of {record.backend} cannot be put on hold.",
            fix=f"Cancel it, and resume it later from its last checkpoint: tunedeck runs cancel "
            f"{record.run_id}",
        )
    if handle is None:
        raise UsageError(
            f"{record.run_id} is still being submitted.", fix="Try again once it waits or runs."
        )
    held = replace(handle, data={**handle.data, MARK: True})
    registry.update(record.run_id, handle=held)  # first, for those who watch it end
    try:
        status = await backend.suspend(held)
    except UsageError:
        registry.update(record.run_id, handle=handle)
        raise
    return registry.update(record.run_id, as_suspended(status, held))


async def go_on(record: RunRecord, backend: Backend, registry: Registry) -> RunRecord:
    """Have a run that was put on hold go on as the same job.

    Raises:
        UsageError: if it was not put on hold, or its service does not let it go on.
    """
    handle = record.backend_handle
    if handle is None or not isinstance(backend, Suspends) or not is_suspended(record):
        raise UsageError(f"{record.run_id} was not put on hold.")
    async with reopened(record.log):
        status = await backend.go_on(handle)
        return registry.reopen(record.run_id, status, unmarked(handle))


def unmarked(handle: Handle) -> Handle:
    """The handle of a job that is not, or no longer, to go on."""
    data = {key: value for key, value in handle.data.items() if key != MARK}
    return replace(handle, data=data)
