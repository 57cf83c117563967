"""From a plan to a run: recorded first, then sent."""

from __future__ import annotations

import asyncio

from .backends.base import Backend
from .backends.suspend import unmarked
from .errors import ReachError, TunedeckError
from .plan import Plan
from .runs.record import RunRecord
from .runs.recover import GIVEN_UP
from .runs.registry import Registry
from .states import RunState, Status
from .submission import Submission

_UNKNOWN = "it was given up while it was being submitted"


async def launch(
    plan: Plan,
    submission: Submission,
    backend: Backend,
    registry: Registry,
    *,
    forced: bool = False,
) -> RunRecord:
    """Record a run, submit it, and record where its backend put it.

    Args:
        plan: what is launched.
        submission: the very object that was previewed.
        backend: where it goes.
        registry: where it is recorded before anything is sent.
        forced: whether errors that preflight found were passed over.

    Raises:
        ReachError: if the backend went out of reach; whether it took the run is not known then.
        TunedeckError: if the backend did not take it; the record then says failed, and why.
    """
    registry.add(RunRecord.of(plan, forced=forced))
    try:
        handle = await backend.submit(submission)
    except ReachError as error:
        registry.update(plan.run_id, Status(RunState.SUBMITTING, GIVEN_UP, str(error)))
        asks = f"Whether {plan.run_id} arrived: tunedeck runs show {plan.run_id}"
        error.fix = f"{error.fix} {asks}".lstrip()
        raise
    except (TunedeckError, OSError) as error:
        registry.update(plan.run_id, Status(RunState.FAILED, "not submitted", str(error)))
        raise
    except asyncio.CancelledError:
        registry.update(plan.run_id, Status(RunState.SUBMITTING, GIVEN_UP, _UNKNOWN))
        raise
    record = registry.update(plan.run_id, handle=handle)
    if record.state is RunState.CANCELLED:  # by someone else, while it was on its way
        return registry.update(plan.run_id, await backend.cancel(handle))
    try:
        status = await backend.status(handle)
    except ReachError:  # it was taken; whoever looks at it next sees how it is
        return record
    if status.state is RunState.LOST:  # a service's lists may lag behind its own answers
        return record
    return registry.update(plan.run_id, status)


async def cancel(record: RunRecord, backend: Backend, registry: Registry) -> RunRecord:
    """Cancel a run, and return its record once nothing of it goes on.

    A run that never reached its backend is cancelled in the registry; its launcher, if it is about
    to submit it, finds that out and withdraws the job.
    """
    handle = record.backend_handle or await backend.find(record.run_id, record.run_dir)
    if handle is None:
        status = Status(RunState.CANCELLED, "not submitted", "cancelled before it was submitted")
        return registry.update(record.run_id, status)
    handle = unmarked(handle)
    return registry.update(record.run_id, await backend.cancel(handle), handle=handle)
