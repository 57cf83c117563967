"""Starting a job on Lepton, once, and finding it again by its name."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from ...errors import NotFoundError, UsageError
from ...plan import SecretRef
from ...states import Status
from ...submission import Submission
from ...text import did_you_mean
from ..base import Handle
from ..cloud.bring import bring
from ..cloud.errors import Passing
from ..cloud.mounted import job_root
from ..cloud.once import submit_once
from ..cloud.told import not_ours, plan_of
from .client import ALL, Lepton, id_of, name_of
from .job import FOLDER_KEYS, RUN_LABEL, carrier_body
from .logs import logs
from .watch import status_from


async def submit(lepton: Lepton, submission: Submission) -> Handle:
    """Start a submission's job unless there is one.

    Raises:
        UsageError: if the service refuses it, or an input has changed since it was planned.
        AuthenticationError: if the credential is refused.
        ReachError: if the service stays out of reach.
    """
    payload = submission.payload or {}
    run_id, run_dir = submission.run_id, str(submission.cwd)
    ready: dict[str, Any] = {}

    async def send() -> Handle:
        if not ready:
            ready.update(await _prepare(lepton, submission, payload))
        return _handle(lepton, run_id, run_dir, await lepton.create(ready))

    return await submit_once(lambda: find(lepton, run_id, run_dir), send)


async def find(lepton: Lepton, run_id: str, run_dir: str) -> Handle | None:
    """The job of a run, also one that has ended, by its name or its label."""
    for job in await lepton.jobs(ALL, q=run_id):
        labels = (job.get("metadata") or {}).get("labels") or {}
        names = (id_of(job), name_of(job))
        if labels.get(RUN_LABEL) == run_id or any(_is_of(name, run_id) for name in names):
            return _handle(lepton, run_id, run_dir, job)
    return None


async def adopt(lepton: Lepton, job_id: str) -> tuple[Handle, dict[str, Any]]:
    """The handle of a job that another machine started, and the plan that it carries.

    Raises:
        NotFoundError: if there is no such job, or it is no run of ours.
    """
    job = await lepton.job(job_id)
    plan = plan_of(((job or {}).get("spec") or {}).get("envs") or ())
    if job is None or plan is None:
        raise not_ours(f"Job {job_id} of the workspace", known=job is not None)
    root = job_root(plan["profile_values"], FOLDER_KEYS)
    return _handle(lepton, plan["run_id"], f"{root}/{plan['run_id']}", job), plan


async def node_group_id(lepton: Lepton, wanted: str) -> str:
    """The id of a node group that is known by its name or its id.

    Raises:
        UsageError: if there is none; with the nearest name.
    """
    groups = await lepton.node_groups()
    for group in groups:
        if wanted in (id_of(group), name_of(group)):
            return id_of(group)
    names = [name_of(group) for group in groups]
    raise UsageError(
        f"The workspace has no node group '{wanted}'. {did_you_mean(wanted, names)}".rstrip(),
        fix=f"Set node_group to one of: {', '.join(sorted(names)) or 'none is there'}.",
    )


async def with_ids(lepton: Lepton, body: Mapping[str, Any]) -> dict[str, Any]:
    """A job's body with its node group by id.

    Raises:
        UsageError: if there is no such group.
    """
    job = copy.deepcopy(dict(body))
    groups = job["spec"]["affinity"]["allowed_dedicated_node_groups"]
    groups[:] = [await node_group_id(lepton, name) for name in groups]
    return job


class Carriers:
    """Jobs that bring inputs, as `carry` wants them."""

    def __init__(self, lepton: Lepton, job: Mapping[str, Any], shape: str) -> None:
        self._lepton, self._job, self._shape = lepton, job, shape

    async def carrier_status(self, name: str) -> Status | None:
        """The job of that name, also one that is archived."""
        if job := await self._lepton.job(name):
            return status_from(job)
        known = [job for job in await self._lepton.jobs(ALL, q=name) if name_of(job) == name]
        return status_from(known[-1]) if known else None

    async def start_carrier(self, name: str, env: Mapping[str, str], script: str) -> None:
        """Create it."""
        body = carrier_body(self._job, self._shape, name, env, script)
        try:
            await self._lepton.create(body)
        except UsageError:
            if await self.carrier_status(name) is None:
                raise

    async def carrier_lines(self, name: str) -> AsyncGenerator[bytes]:
        """Its log, until it has ended."""
        handle = Handle(name, name, {})
        async with aclosing(logs(self._lepton, handle, None, wait=True)) as lines:
            async for entry in lines:
                yield entry.line

    async def drop_carrier(self, name: str) -> None:
        """Delete it, and wait until its name is free."""
        try:
            await self._lepton.delete(name)
            while await self.carrier_status(name) is not None:
                await asyncio.sleep(1)
        except NotFoundError:
            return


async def _prepare(
    lepton: Lepton, submission: Submission, payload: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that comes before the job: its inputs, its secrets, its node group's id."""
    job = await with_ids(lepton, payload["job"])
    missing = await _keep_secrets(lepton, submission.secrets)
    envs = [env for env in job["spec"]["envs"] if env["name"] not in missing]
    carriers = Carriers(lepton, job, str(payload["carrier_shape"]))
    job["spec"]["envs"] = await bring(payload, carriers, _place_of(job), envs)
    return job


async def _keep_secrets(lepton: Lepton, secrets: tuple[SecretRef, ...]) -> set[str]:
    """Give the workspace the secrets that only this machine has; the names that nobody has.

    One that the workspace knows stays as it is: others may use it. Preflight has spoken of those
    that are nowhere.
    """
    own = [secret for secret in secrets if not secret.remote]
    if not own:
        return set()
    known, missing = await lepton.secret_names(), set()
    for secret in own:
        if secret.name in known:
            continue
        if value := os.environ.get(secret.source):
            try:
                await lepton.add_secret(secret.name, value)
            except (UsageError, Passing):  # kept by someone else just now, or its answer was lost
                if secret.name not in await lepton.secret_names():
                    raise
        else:
            missing.add(secret.name)
    return missing


def _place_of(job: Mapping[str, Any]) -> str:
    """What tells the storage that the job mounts from others."""
    return "|".join(f"{m['from']}:{m['path']}:{m['mount_path']}" for m in job["spec"]["mounts"])


def _handle(lepton: Lepton, run_id: str, run_dir: str, job: Mapping[str, Any]) -> Handle:
    data = {"run_dir": run_dir, "workspace": lepton.service.base_url}
    return Handle(run_id, id_of(job), data)


def _is_of(name: str, run_id: str) -> bool:
    return name == run_id or name.endswith(f"-{run_id}")
