"""Runs that another machine launched, taken into the registry of this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from .. import locations
from ..backends.base import Backend, Handle
from ..errors import NotFoundError, UsageError
from ..states import RunState
from .record import RunRecord
from .registry import Registry


@runtime_checkable
class TellsPlans(Protocol):
    """A backend that keeps a run's plan where its job is."""

    async def adopt(self, job_id: str) -> tuple[Handle, dict[str, Any]]:
        """The handle and the plan of a job."""
        ...


async def adopt(
    backend: Backend,
    profile: str,
    values: Mapping[str, Any],
    job_id: str,
    registry: Registry,
) -> RunRecord:
    """The record of a job, made if this machine has none.

    Raises:
        UsageError: if the backend cannot tell a job's plan.
        NotFoundError: if there is no such job, or it is no run of ours.
    """
    if not isinstance(backend, TellsPlans):
        raise UsageError(
            f"Runs of {backend.name} cannot be attached to by their job.",
            fix="Follow it on the machine that launched it: tunedeck runs logs -f RUN",
        )
    handle, plan = await backend.adopt(job_id)
    try:
        return registry.get(handle.run_id)
    except NotFoundError:
        registry.add(_record(plan, profile, values, backend.name))
    return registry.update(handle.run_id, await backend.status(handle), handle=handle)


def _record(
    plan: Mapping[str, Any], profile: str, values: Mapping[str, Any], backend: str
) -> RunRecord:
    """The record, reached as this machine's own profile says."""
    return RunRecord(
        run_id=plan["run_id"],
        name=plan["name"],
        step=plan["step"],
        config=plan["config"],
        profile=profile,
        backend=backend,
        run_dir=locations.run_dir(plan["run_id"]),
        created_at=plan["created_at"],
        state=RunState.SUBMITTING,
        plan={**plan, "profile": profile, "profile_values": dict(values)},
    )
