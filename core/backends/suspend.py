"""What a backend offers whose service can put a job on hold and have the same one go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

from ..states import RunState, Status
from .base import Handle

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


def as_suspended(status: Status, handle: Handle) -> Status:
    """A status of a job that was stopped, as its handle has it: on hold rather than cancelled."""
    if status.state is not RunState.CANCELLED or not handle.data.get(MARK):
        return status
    reason = REASON.format(run_id=handle.run_id)
    return replace(status, state=RunState.PREEMPTED, reason=reason)


def unmarked(handle: Handle) -> Handle:
    """The handle of a job that is not, or no longer, to go on."""
    data = {key: value for key, value in handle.data.items() if key != MARK}
    return replace(handle, data=data)
