"""Starting a workload on Run:ai, once, and finding it again by its name."""

from __future__ import annotations

import asyncio
import copy
import os
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from ...errors import NotFoundError, UsageError
from ...plan import SecretRef
from ...states import Status
from ...submission import Submission
from ..base import Handle
from ..cloud.bring import bring
from ..cloud.errors import Passing
from ..cloud.mounted import job_root
from ..cloud.once import submit_once
from ..cloud.told import not_ours, plan_of
from .client import DISTRIBUTED, TRAINING, RunAI
from .job import FOLDER_KEYS, carrier_body, secret_place
from .logs import logs
from .watch import status_from

_SECRETS = "/asset/credentials/generic-secret"
_NAME_TAKEN_PACE_S = 1.0


async def submit(runai: RunAI, submission: Submission) -> Handle:
    """Start a submission's workload unless there is one.

    Raises:
        UsageError: if the service refuses it, or an input has changed since it was planned.
        AuthenticationError: if the credential is refused.
        ReachError: if the service stays out of reach.
    """
    payload = submission.payload or {}
    kind, run_id, run_dir = payload["kind"], submission.run_id, str(submission.cwd)
    ready: dict[str, Any] = {}

    async def send() -> Handle:
        if not ready:
            ready.update(await _prepare(runai, submission, payload))
        return _handle(run_id, run_dir, kind, await runai.create(kind, ready))

    return await submit_once(lambda: find(runai, run_id, run_dir), send)


async def find(runai: RunAI, run_id: str, run_dir: str) -> Handle | None:
    """The workload of a run, also one that has ended, by its name."""
    rows = await runai.rows("/workloads", "workloads", filterBy=f"name=@{run_id}")
    for row in rows:
        name = str(row.get("name"))
        if (name == run_id or name.endswith(f"-{run_id}")) and not row.get("deletedAt"):
            return _handle(run_id, run_dir, _kind_of(row), {**row, "workloadId": row["id"]})
    return None


async def adopt(runai: RunAI, wanted: str) -> tuple[Handle, dict[str, Any]]:
    """The handle of a workload that another machine started, and the plan that it carries.

    Raises:
        NotFoundError: if there is no such workload, or it is no run of ours.
    """
    row = await _row_of(runai, wanted)
    told = await runai.workload(_kind_of(row), str(row["id"])) if row else None
    plan = plan_of(((told or {}).get("spec") or {}).get("environmentVariables") or ())
    if row is None or told is None or plan is None:
        raise not_ours(f"Workload {wanted}", known=told is not None)
    run_dir = f"{job_root(plan['profile_values'], FOLDER_KEYS)}/{plan['run_id']}"
    return _handle(plan["run_id"], run_dir, _kind_of(row), told), plan


async def _row_of(runai: RunAI, wanted: str) -> dict[str, Any] | None:
    """A workload as the list of all kinds tells it, by its id or its name."""
    try:
        uuid.UUID(wanted)
    except ValueError:
        return await runai.named(wanted)
    return await runai.row(wanted)


def _kind_of(row: Mapping[str, Any]) -> str:
    return DISTRIBUTED if str(row.get("type")).lower() == "distributed" else TRAINING


def with_ids(body: Mapping[str, Any], project: Mapping[str, Any]) -> dict[str, Any]:
    """A workload's body with project and cluster by their ids."""
    ids = {"projectId": str(project["id"]), "clusterId": str(project["clusterId"])}
    return {**copy.deepcopy(dict(body)), **ids}


class Carriers:
    """Trainings that bring inputs, as `carry` wants them."""

    def __init__(self, runai: RunAI, body: Mapping[str, Any]) -> None:
        self._runai, self._body = runai, body

    async def carrier_status(self, name: str) -> Status | None:
        """The training of that name."""
        row = await self._runai.named(name)
        return None if row is None else status_from({**row, "actualPhase": row.get("phase")})

    async def start_carrier(self, name: str, env: Mapping[str, str], script: str) -> None:
        """Create it."""
        try:
            await self._runai.create(TRAINING, carrier_body(self._body, name, env, script))
        except UsageError:
            if await self.carrier_status(name) is None:
                raise

    async def carrier_lines(self, name: str) -> AsyncGenerator[bytes]:
        """Its log, until it has ended."""
        row = await self._runai.named(name)
        if row is None:
            return
        handle = Handle(name, str(row["id"]), {"kind": TRAINING, "name": name, "run_dir": "/"})
        async with aclosing(
            logs(self._runai, self._runai.values, handle, None, wait=True)
        ) as lines:
            async for entry in lines:
                yield entry.line

    async def drop_carrier(self, name: str) -> None:
        """Delete it, and wait until its name is free."""
        while row := await self._runai.named(name):
            try:
                await self._runai.delete(TRAINING, str(row["id"]))
            except NotFoundError:
                return
            await asyncio.sleep(_NAME_TAKEN_PACE_S)


async def _prepare(
    runai: RunAI, submission: Submission, payload: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that comes before the workload: ids, secrets, inputs."""
    project = await runai.project()
    body = with_ids(payload["workload"], project)
    known = await _keep_secrets(runai, submission.secrets, project)
    envs = [_with_resource(env, known) for env in body["spec"]["environmentVariables"]]
    kept = [env for env in envs if env is not None]
    place = f"{project['id']}|{body['spec']['storage']}"
    brought = await bring(payload, Carriers(runai, body), place, kept)
    body["spec"]["environmentVariables"] = brought
    return body


async def _keep_secrets(
    runai: RunAI, secrets: tuple[SecretRef, ...], project: Mapping[str, Any]
) -> dict[str, str]:
    """Give the project the secrets that only this machine has.

    A credential that is there stays as it is: others may use it. Preflight has spoken of those that
    are nowhere.

    Returns:
        Name of a credential → of the Kubernetes secret that it is in the project.
    """
    if not secrets:
        return {}
    known = await secret_resources(runai, project)
    for secret in secrets:
        at, value = secret_place(secret), os.environ.get(secret.source)
        if secret.remote or at["name"] in known or not value:
            continue
        body = {
            "meta": {"name": at["name"], "scope": "project", "projectId": int(project["id"])},
            "spec": {"keyValuePairs": [{"key": at["key"], "value": value}]},
        }
        try:
            await runai.call("POST", _SECRETS, body=body, safe=False)
        except (UsageError, Passing):  # made by someone else just now, or its answer was lost
            if at["name"] not in await secret_resources(runai, project):
                raise
    known = await secret_resources(runai, project)
    remote = {secret_place(s)["name"] for s in secrets if s.remote}
    return {**{name: name for name in remote}, **known}


async def secret_resources(runai: RunAI, project: Mapping[str, Any]) -> dict[str, str]:
    """Name of each generic secret that the project sees → of its Kubernetes secret."""
    found = {}
    for entry in await runai.entries(_SECRETS, {"projectId": project["id"]}):
        name = str((entry.get("meta") or {}).get("name"))
        resources = (entry.get("clusterInfo") or {}).get("resources") or []
        own = str((entry.get("spec") or {}).get("existingSecretName") or name)
        found[name] = str(resources[0].get("name") or own) if resources else own
    return found


def _with_resource(env: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any] | None:
    """A variable with its secret named as Kubernetes has it; None where the secret is nowhere."""
    if "secret" not in env:
        return dict(env)
    name = env["secret"]["name"]
    if name not in known:
        return None
    return {**env, "secret": {**env["secret"], "name": known[name]}}


def _handle(run_id: str, run_dir: str, kind: str, told: Mapping[str, Any]) -> Handle:
    data = {"run_dir": run_dir, "kind": kind, "name": told["name"]}
    return Handle(run_id, str(told["workloadId"]), data)
