"""Putting a run on hold where it is, and having the same job go on.

Where a service can stop a job and start the same one again, that gives its machines back and keeps
its place, name and log. A run that has been put on hold counts as preempted: it has saved what it
could, and nothing of it goes on. `runs resume` continues the job itself; with changes it becomes a
new run from the last checkpoint, as any other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..backends.suspend import MARK, Suspends, as_suspended, unmarked
from ..errors import UsageError
from ..logs.spool import reopened
from ..states import RunState

if TYPE_CHECKING:
    from ..backends.base import Backend
    from .record import RunRecord
    from .registry import Registry


def is_suspended(record: RunRecord) -> bool:
    """Whether a run was put on hold and can go on in place."""
    held = bool((record.handle or {}).get(MARK))
    return record.state is RunState.PREEMPTED and held


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
        raise UsageError(
            f"{record.run_id} was not put on hold.",
            fix=f"See how it goes: tunedeck runs show {record.run_id}",
        )
    async with reopened(record.log):
        status = await backend.go_on(handle)
        return registry.reopen(record.run_id, status, unmarked(handle))
