"""DGX Cloud Lepton."""

from __future__ import annotations

import asyncio
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
    from .client import Lepton


class LeptonBackend:
    """Runs as batch jobs of a Lepton workspace."""

    name = "lepton"
    capabilities = Capabilities()

    def __init__(self, profile_values: dict[str, Any]) -> None:
        self._values = profile_values

    @cached_property
    def _lepton(self) -> Lepton:
        from .client import Lepton

        return Lepton()

    async def preflight(self, plan: Plan) -> list[Finding]:
        """What the service says: token, workspace, node group, shape, secrets, storage."""
        from .job import job_of
        from .preflight import check_service

        return await check_service(self._lepton, plan, await asyncio.to_thread(job_of, plan))

    def remarks(self, plan: Plan) -> list[Finding]:
        """What can be told without the service."""
        from .preflight import check_plan

        return check_plan(plan)

    def render(self, plan: Plan) -> Submission:
        """The body of the request, and what must be on the storage before the step starts.

        The node group stands in it as the profile names it, until `settle` has its id.
        """
        from .job import CARRIER_SHAPE, job_of

        job = job_of(plan)
        shape = plan.profile_values.get("carrier_shape") or CARRIER_SHAPE
        payload = {"job": job.body, "carrier_shape": shape}
        return job.place.submission(plan, self.name, job.script, payload)

    async def settle(self, submission: Submission) -> Submission:
        """With the node group's id.

        Raises:
            TunedeckError: if it cannot be had.
        """
        from .submit import with_ids

        payload = dict(submission.payload or {})
        body = await with_ids(self._lepton, payload["job"])
        return replace(submission, payload={**payload, "job": body})

    async def submit(self, submission: Submission) -> Handle:
        """Bring what is not there yet, and start the job, once."""
        from .submit import submit

        return await submit(self._lepton, submission)

    async def find(self, run_id: str, run_dir: Path) -> Handle | None:
        """The job that carries a run's id in its name or label."""
        from ..cloud.mounted import job_root
        from .job import FOLDER_KEYS
        from .submit import find

        root = job_root(self._values, FOLDER_KEYS)
        return await find(self._lepton, run_id, f"{root}/{run_id}")

    async def adopt(self, job_id: str) -> tuple[Handle, dict[str, Any]]:
        """The handle and the plan of a job that another machine started, by its id.

        Raises:
            NotFoundError: if there is no such job, or it is no run of ours.
        """
        from .submit import adopt

        return await adopt(self._lepton, job_id)

    async def status(self, handle: Handle) -> Status:
        """By the service's state, and of a job that has ended by its last word.

        Raises:
            ReachError: if the environment names another workspace than the run's.
        """
        from .watch import status_of

        return await status_of(self._of(handle), handle)

    def _of(self, handle: Handle) -> Lepton:
        """The workspace of a run. Another one knows nothing of it, and must not be asked."""
        from ...errors import ReachError

        here, there = self._lepton.service.base_url, handle.data.get("workspace")
        if there not in (None, here):
            raise ReachError(
                f"Run {handle.run_id} is in the workspace at {there}; the environment names the "
                f"one at {here}.",
                fix="Set LEPTON_WORKSPACE_ID (and LEPTON_WORKSPACE_TOKEN) to the run's workspace.",
            )
        return self._lepton

    def logs(self, handle: Handle, cursor: str | None, *, follow: bool) -> AsyncGenerator[LogLine]:
        """Lines of all replicas; the cursor holds each one's last nanosecond."""
        from .logs import logs

        return logs(self._of(handle), handle, cursor, wait=follow)

    async def cancel(self, handle: Handle) -> Status:
        """Stop the job, which keeps its history; return once the service says that it has ended.

        Raises:
            DeadlineError: if it goes on all the same.
        """
        from ..ending import stopped

        return await stopped(
            f"Job {handle.job_id}",
            lambda: self.status(handle),
            lambda: self._of(handle).set_stopped(handle.job_id, stopped=True),
            f"Look at it: lep job get -i {handle.job_id}",
        )

    async def suspend(self, handle: Handle) -> Status:
        """Stop the job: a stopped one can be started again.

        Raises:
            DeadlineError: if it goes on all the same.
        """
        return await self.cancel(handle)

    async def go_on(self, handle: Handle) -> Status:
        """Start a stopped job again."""
        await self._of(handle).set_stopped(handle.job_id, stopped=False)
        return await self.status(handle)

    async def forget(self, handle: Handle) -> None:
        """Remove the job and its history at the service."""
        from ...errors import NotFoundError

        try:
            await self._of(handle).delete(handle.job_id)
        except NotFoundError:
            return

    async def ship(
        self,
        handle: Handle,
        patterns: Sequence[str],
        here: Mapping[str, str],
        on_bytes: Callable[[int, int], None],
    ) -> bytes:
        """Files of a run, sent by a job of the run's own image and mounts.

        Raises:
            TunedeckError: if the service has no such job any more, or the files cannot be sent.
        """
        from ..cloud.ship import ship
        from ..cloud.told import gone
        from .job import CARRIER_SHAPE
        from .submit import Carriers

        lepton = self._of(handle)
        job = await lepton.job(handle.job_id)
        if job is None:
            raise gone(handle)
        shape = str(self._values.get("carrier_shape") or CARRIER_SHAPE)
        carriers = Carriers(lepton, job, shape)
        return await ship(carriers, handle.data["run_dir"], patterns, here, on_bytes)

    async def inventory(self, profile_values: dict[str, Any]) -> dict[str, Any]:
        """Node groups and what is free in them, shapes, and my jobs."""
        from .inventory import inventory

        return await inventory(self._lepton, profile_values)
