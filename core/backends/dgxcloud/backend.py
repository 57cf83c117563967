"""DGX Cloud Run:ai."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...findings import Finding
from ...plan import Plan
from ...states import Status
from ...submission import Submission
from ..base import Capabilities, Handle, LogLine

if TYPE_CHECKING:
    from .client import RunAI


class DGXCloudBackend:
    """Runs as workloads of a Run:ai project."""

    name = "dgxcloud"
    capabilities = Capabilities()

    def __init__(self, profile_values: dict[str, Any]) -> None:
        self._values = profile_values

    @cached_property
    def _runai(self) -> RunAI:
        from .client import RunAI

        return RunAI(self._values)

    async def preflight(self, plan: Plan) -> list[Finding]:
        """What the service says: credential, project, cluster, node pools, volumes, secrets."""
        from .preflight import check_service

        return await check_service(self._runai, plan)

    def remarks(self, plan: Plan) -> list[Finding]:
        """What can be told without the service."""
        from .preflight import check_plan

        return check_plan(plan)

    def render(self, plan: Plan) -> Submission:
        """The body of the request, and what must be on the volume before the step starts.

        Project and cluster stand in it by name, until `settle` has their ids, and secrets by the
        names of their credentials, until the body is sent.
        """
        from .job import workload_of

        workload = workload_of(plan)
        payload = {"kind": workload.kind, "workload": workload.body}
        return workload.place.submission(plan, self.name, workload.script, payload)

    async def settle(self, submission: Submission) -> Submission:
        """With the ids of project and cluster.

        Raises:
            TunedeckError: if they cannot be had.
        """
        from .submit import with_ids

        payload = dict(submission.payload or {})
        body = with_ids(payload["workload"], await self._runai.project())
        return replace(submission, payload={**payload, "workload": body})

    async def submit(self, submission: Submission) -> Handle:
        """Bring what is not there yet, and start the workload, once."""
        from .submit import submit

        return await submit(self._runai, submission)

    async def find(self, run_id: str, run_dir: Path) -> Handle | None:
        """The workload that carries a run's id in its name."""
        from ..cloud.mounted import job_root
        from .job import FOLDER_KEYS
        from .submit import find

        root = job_root(self._values, FOLDER_KEYS)
        return await find(self._runai, run_id, f"{root}/{run_id}")

    async def adopt(self, job_id: str) -> tuple[Handle, dict[str, Any]]:
        """The handle and the plan of a workload that another machine started, by its id or name.

        Raises:
            NotFoundError: if there is no such workload, or it is no run of ours.
        """
        from .submit import adopt

        return await adopt(self._runai, job_id)

    async def status(self, handle: Handle) -> Status:
        """By the service's phase, and of a workload that has ended by its last word."""
        from .watch import status_of

        return await status_of(self._runai, handle)

    def logs(self, handle: Handle, cursor: str | None, *, follow: bool) -> AsyncGenerator[LogLine]:
        """Lines of the workload's log; the cursor counts them."""
        from .logs import logs

        return logs(self._runai, self._values, handle, cursor, wait=follow)

    async def cancel(self, handle: Handle) -> Status:
        """Suspend the workload, which keeps its history; return once it has ended.

        Raises:
            DeadlineError: if it goes on all the same.
        """
        from ..ending import stopped

        return await stopped(
            f"Workload {handle.data['name']}",
            lambda: self.status(handle),
            lambda: self._runai.suspend(handle.data["kind"], handle.job_id),
            f"See {self._runai.root}/workload-manager/workloads",
        )

    async def suspend(self, handle: Handle) -> Status:
        """Suspend the workload, as cancelling does: a suspended one can go on.

        Raises:
            DeadlineError: if it goes on all the same.
        """
        return await self.cancel(handle)

    async def go_on(self, handle: Handle) -> Status:
        """Resume the workload.

        Raises:
            UsageError: if it has ended in another way than by suspension.
        """
        from ...errors import UsageError

        try:
            await self._runai.resume(handle.data["kind"], handle.job_id)
        except UsageError:  # someone else was first, or our own answer was lost
            status = await self.status(handle)
            if status.state.terminal:
                raise
        return await self.status(handle)

    async def forget(self, handle: Handle) -> None:
        """Remove the workload and its history at the service."""
        from ...errors import NotFoundError

        try:
            await self._runai.delete(handle.data["kind"], handle.job_id)
        except NotFoundError:
            return

    async def ship(
        self,
        handle: Handle,
        patterns: Sequence[str],
        here: Mapping[str, str],
        on_bytes: Callable[[int, int], None],
    ) -> bytes:
        """Files of a run, sent by a training of the run's own image and volumes.

        Raises:
            TunedeckError: if the service has no such workload any more, or they cannot be sent.
        """
        from ..cloud.ship import ship
        from ..cloud.told import gone
        from .submit import Carriers

        workload = await self._runai.workload(handle.data["kind"], handle.job_id)
        if workload is None:
            raise gone(handle)
        carriers = Carriers(self._runai, workload)
        return await ship(carriers, handle.data["run_dir"], patterns, here, on_bytes)

    async def inventory(self, profile_values: dict[str, Any]) -> dict[str, Any]:
        """Projects and their GPUs, node pools, and the project's workloads."""
        from .inventory import inventory

        return await inventory(self._runai, profile_values)
