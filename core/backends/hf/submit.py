"""Starting a job on Hugging Face, once, and finding it again by its label."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from ...submission import Submission
from ..base import Handle
from ..cloud.errors import Passing
from ..cloud.once import submit_once
from ..layout import Upload
from .client import Hub
from .job import RUN_LABEL
from .place import PLACE, Storage
from .upload import OnBytes, put, upload


async def submit(hub: Hub, submission: Submission, on_bytes: OnBytes | None = None) -> Handle:
    """Start a submission's job unless there is one.

    Raises:
        UsageError: if the service refuses it, or an input has changed since it was planned.
        AuthenticationError: if the credential is refused.
        ReachError: if the service stays out of reach.
    """
    payload = submission.payload or {}
    namespace, body = payload["namespace"], payload["job"]

    async def send() -> Handle:
        job = await hub.call(
            "run_job", safe=False, namespace=namespace, **_options(submission, body)
        )
        handle = handle_of(job, namespace)
        if handle is None or handle.run_id != submission.run_id:
            raise Passing("Hugging Face answered with another job.", acted=True)
        return handle

    if existing := await find(hub, namespace, submission.run_id):
        return existing
    await _prepare(hub, submission, payload, on_bytes)
    return await submit_once(lambda: find(hub, namespace, submission.run_id), send)


async def find(hub: Hub, namespace: str, run_id: str) -> Handle | None:
    """The job of a run; the newest if its launchers between them made several."""
    jobs = await hub.call("list_jobs", namespace=namespace, narrow={"labels": {RUN_LABEL: run_id}})
    found = [handle for job in jobs if (handle := handle_of(job, namespace))]
    return next((handle for handle in found if handle.run_id == run_id), None)


def handle_of(job: Any, namespace: str) -> Handle | None:
    """The handle of a job as the service tells it; None if it is no run of ours."""
    run_id = (job.labels or {}).get(RUN_LABEL)
    if run_id is None:
        return None
    data: dict[str, Any] = {"namespace": namespace, "url": job.url}
    bucket, _, rest = str((job.environment or {}).get(PLACE) or "").partition(":")
    prefix, _, run_dir = rest.partition(":")
    if bucket and run_dir:
        data |= {"bucket": bucket, "prefix": prefix, "run_dir": run_dir}
    return Handle(run_id, job.id, data)


async def _prepare(
    hub: Hub, submission: Submission, payload: Mapping[str, Any], on_bytes: OnBytes | None
) -> None:
    if not payload["bucket"]:
        return
    place = payload["bucket"]
    root = str(PurePosixPath(place["run_dir"]).parent)
    storage = Storage(place["id"], place["mount"], root)
    uploads = [Upload.from_json(item) for item in payload["uploads"]]
    await upload(hub, storage, uploads, on_bytes)
    for file in submission.files:
        await put(hub, storage, file.path, file.content.encode())


def _options(submission: Submission, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body as the library's arguments, with the secrets' values."""
    from huggingface_hub import Volume

    return {
        "image": body["dockerImage"],
        "command": list(body["command"]),
        "env": dict(body["environment"]),
        "secrets": submission.secret_values() or None,
        "flavor": body["flavor"],
        "timeout": body["timeoutSeconds"],
        "attempts": body.get("attempts"),
        "labels": dict(body["labels"]),
        "volumes": [Volume(**volume) for volume in body.get("volumes", ())] or None,
    }
