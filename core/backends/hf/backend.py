"""Hugging Face Jobs."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import NotFoundError, UsageError
from ...findings import Finding
from ...plan import Plan
from ...states import Status
from ...submission import Submission, SubmissionFile
from ..base import Capabilities, Handle, LogLine

if TYPE_CHECKING:
    from ..files import RemoteFile
    from .client import Hub


class HFJobsBackend:
    """Runs as jobs of a user or an organization on Hugging Face."""

    name = "hf_jobs"
    capabilities = Capabilities()

    def __init__(self, profile_values: dict[str, Any]) -> None:
        self._values = profile_values
        self._on_upload: Callable[[str, int, int], None] | None = None

    @cached_property
    def _hub(self) -> Hub:
        from .client import Hub

        return Hub()

    async def preflight(self, plan: Plan) -> list[Finding]:
        """What the service says of a plan: the token, the namespace, the flavor, the volumes."""
        from .preflight import check_service

        return await check_service(self._hub, plan)

    def remarks(self, plan: Plan) -> list[Finding]:
        """What can be told without the service: whether what the run makes outlives the job."""
        from .remarks import check_plan

        return check_plan(plan)

    def render(self, plan: Plan) -> Submission:
        """The body of the request, secrets masked, and what is uploaded before it is sent."""
        from .job import job_of

        job = job_of(plan)
        run_dir = f"{job.storage.root}/{plan.run_id}" if job.storage else ""
        bucket = None
        if job.storage:
            bucket = {"id": job.storage.bucket, "mount": job.storage.mount, "run_dir": run_dir}
        record = SubmissionFile.of_json(f"{run_dir}/plan.json", plan.to_json())
        return Submission(
            run_id=plan.run_id,
            backend=self.name,
            argv=job.script.command,
            env=dict(job.body["environment"]),
            secrets=plan.secrets,
            files=(record,) if run_dir else (),
            script=job.script.text,
            payload={
                "namespace": job.namespace,
                "job": job.body,
                "bucket": bucket,
                "uploads": [upload.to_json() for upload in job.uploads],
            },
            cwd=run_dir or None,
        )

    async def submit(self, submission: Submission) -> Handle:
        """Upload what is not there yet, and start the job, once."""
        from .submit import submit

        return await submit(self._hub, submission, self._on_upload)

    def tell_uploads(self, on_progress: Callable[[str, int, int], None]) -> None:
        """Have told, from now on, how far what a job needs is on its way to the bucket."""
        self._on_upload = on_progress

    async def find(self, run_id: str, run_dir: Path) -> Handle | None:
        """The job that carries a run's id as its label."""
        from .settings import namespace_of
        from .submit import find

        return await find(self._hub, namespace_of(self._values), run_id)

    async def status(self, handle: Handle) -> Status:
        """By the service's stage, and of a job that has ended by its last word."""
        from .watch import status_of

        return await status_of(self._hub, handle)

    def logs(self, handle: Handle, cursor: str | None, *, follow: bool) -> AsyncGenerator[LogLine]:
        """Lines of the job's log; the cursor counts the service's events."""
        from .watch import logs

        return logs(self._hub, handle, cursor, wait=follow)

    async def cancel(self, handle: Handle) -> Status:
        """Cancel the job, and return once the service says that it has ended.

        Raises:
            DeadlineError: if it goes on all the same.
        """
        from ..ending import stopped

        job = {"job_id": handle.job_id, "namespace": handle.data["namespace"]}
        return await stopped(
            f"Job {handle.job_id}",
            lambda: self.status(handle),
            lambda: self._hub.call("cancel_job", **job),
            f"See {self._hub.endpoint}/jobs/{job['namespace']}/{handle.job_id}",
        )

    async def inventory(self, profile_values: dict[str, Any]) -> dict[str, Any]:
        """The flavors with their prices, and the namespace's jobs that have not ended."""
        from .inventory import inventory

        return await inventory(self._hub, profile_values)

    async def price(self, plan: Plan) -> dict[str, Any] | None:
        """The flavor's price for the whole of the time limit: what it costs at most."""
        from .inventory import price

        return await price(self._hub, plan)

    async def files(self, handle: Handle) -> Sequence[RemoteFile]:
        """The files that the run has left in its bucket."""
        from .storage import files_of

        bucket, prefix = _place(handle)
        return await files_of(self._hub, bucket, prefix)

    async def fetch(
        self, handle: Handle, name: str, target: Path, offset: int, on_bytes: Callable[[int], None]
    ) -> None:
        """Bring the rest of a file home, and hold the whole to the storage's digest."""
        from .download import download
        from .storage import target_of

        bucket, prefix = _place(handle)
        path = await target_of(self._hub, bucket, prefix, name)
        await download(self._hub, bucket, path, target, on_bytes)

    async def adopt(self, job_id: str) -> tuple[Handle, dict[str, Any]]:
        """The handle and the plan of a job that another machine started.

        Raises:
            NotFoundError: if there is no such job, or it is no run of ours.
        """
        from .settings import namespace_of
        from .storage import read
        from .submit import handle_of

        namespace = namespace_of(self._values)
        job = await self._hub.call("inspect_job", job_id=job_id, namespace=namespace)
        handle = handle_of(job, namespace)
        if handle is None or not handle.data.get("bucket"):
            raise NotFoundError(
                f"Job {job_id} of {namespace} is no run of Tunedeck's that can be attached to.",
                fix="Give the id of a job that Tunedeck submitted, and the profile it used.",
            )
        bucket, prefix = _place(handle)
        plan: dict[str, Any] = json.loads(await read(self._hub, bucket, f"{prefix}/plan.json"))
        return handle, plan


def _place(handle: Handle) -> tuple[str, str]:
    """The bucket of a run, and its folder in it.

    Raises:
        UsageError: if it has none.
    """
    if bucket := handle.data.get("bucket"):
        return bucket, handle.data["prefix"]
    raise UsageError(
        f"Run {handle.run_id} keeps nothing in a bucket, so nothing can be fetched.",
        fix=f"Its log is here: tunedeck runs logs {handle.run_id}",
    )
