"""DGX Cloud Lepton's API (version 2): the credential, and what is asked of it.

Paths, fields and states are those of NVIDIA's own client (leptonai, `api/v2`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ...errors import AuthenticationError, NotFoundError
from ..cloud.errors import Passing
from ..cloud.http import Service

SERVICE = "DGX Cloud Lepton"
SIGN_IN = (
    "Export LEPTON_WORKSPACE_ID and LEPTON_WORKSPACE_TOKEN "
    "(https://dashboard.dgxc-lepton.nvidia.com/credentials), or sign in with: lep login"
)

ALL = "alive_and_archive"
ALIVE = "alive_only"

_GATEWAY = "https://gateway.dgxc-lepton.nvidia.com/api/v2/workspaces"
_PAGE = 500


class Lepton:
    """One workspace."""

    @cached_property
    def service(self) -> Service:
        """The workspace's address and credential, as NVIDIA's client finds them.

        Raises:
            AuthenticationError: if there is none.
        """
        known = _workspace()
        headers = {"Authorization": f"Bearer {known['token']}"}
        if known["origin"]:
            headers["origin"] = known["origin"]

        async def give() -> Mapping[str, str]:
            return headers

        return Service(SERVICE, known["url"], give, SIGN_IN)

    async def get(self, path: str, read: Callable[[Any], Any] | None = None, **params: Any) -> Any:
        """An answer's JSON, or what `read` makes of it."""
        return await self.service.call("GET", path, params=params or None, read=read)

    async def rows(self, path: str, key: str = "items", **params: Any) -> list[dict[str, Any]]:
        """The rows of an answer: a list, or a list under a key."""
        found: list[dict[str, Any]] = await self.get(path, partial(_rows_of, key=key), **params)
        return found

    async def jobs(self, mode: str, **params: Any) -> list[dict[str, Any]]:
        """All jobs of a mode, page by page until one is empty."""
        found: list[dict[str, Any]] = []
        page = 1
        while True:
            asked = {"job_query_mode": mode, "page": page, "page_size": _PAGE, **params}
            rows = await self.rows("/jobs", "jobs", **asked)
            known = {id_of(row) for row in found}
            new = [row for row in rows if id_of(row) not in known]
            if not new:  # none, or a service that knows no pages
                return found
            found += new
            page += 1

    async def job(self, job_id: str) -> dict[str, Any] | None:
        """One job, also one that is archived; None if there is none."""
        try:
            found: dict[str, Any] = await self.get(f"/jobs/{job_id}", _job_of, job_query_mode=ALL)
        except NotFoundError:
            return None
        return found

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a job. Is not sent again by itself.

        Raises:
            Passing: with `acted` if the answer was lost.
        """
        made: dict[str, Any] = await self.service.call(
            "POST", "/jobs", body=body, safe=False, read=_job_of
        )
        return made

    async def set_stopped(self, job_id: str, *, stopped: bool) -> None:
        """Stop a job, whose history stays, or start it again."""
        body = {"spec": {"stopped": stopped}}
        await self.service.call("PATCH", f"/jobs/{job_id}", body=body, safe=True)

    async def delete(self, job_id: str) -> None:
        """Remove a job and its history."""
        params = {"job_query_mode": ALL}
        await self.service.call("DELETE", f"/jobs/{job_id}", params=params)

    async def replicas(self, job_id: str) -> list[str]:
        """The ids of a job's replicas in their order, with those that have ended."""
        try:
            rows = await self.rows(f"/jobs/{job_id}/replicas", job_query_mode=ALL)
        except NotFoundError:
            return []
        return [name for row in rows if (name := id_of(row))]

    async def events(self, job_id: str) -> list[dict[str, Any]]:
        """What Kubernetes tells of a job: `type`, `reason`, `last_observed_time`."""
        return await self.rows(f"/jobs/{job_id}/events")

    async def node_groups(self) -> list[dict[str, Any]]:
        """The dedicated node groups that the workspace may use."""
        return await self.rows("/dedicated-node-groups")

    async def secret_names(self) -> set[str]:
        """The names of the workspace's secrets. Values are never told."""
        return {str(row.get("name")) for row in await self.rows("/usersecrets")}

    async def add_secret(self, name: str, value: str) -> None:
        """Keep a secret at the service."""
        body = [{"name": name, "value": value}]
        await self.service.call("POST", "/usersecrets", body=body, safe=False)


def id_of(row: Mapping[str, Any]) -> str:
    """The id in the metadata of a job, a node group or a replica."""
    metadata = row.get("metadata") or {}
    return str(metadata.get("id") or metadata.get("name") or row.get("id") or "")


def name_of(row: Mapping[str, Any]) -> str:
    """The name in the metadata, which people know it by."""
    metadata = row.get("metadata") or {}
    return str(metadata.get("name") or metadata.get("id") or "")


def _rows_of(answer: Any, key: str) -> list[dict[str, Any]]:
    rows = answer.get(key, []) if isinstance(answer, dict) else answer
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Passing(f"{SERVICE} answered with what makes no sense.", acted=False)
    return rows


def _job_of(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict) or not id_of(answer):
        raise Passing(f"{SERVICE} answered with what is no job.", acted=True)
    return answer


def _workspace() -> dict[str, str]:
    """`url`, `token` and `origin`, from the environment or what `lep login` left."""
    saved = _saved()
    name = os.environ.get("LEPTON_WORKSPACE_ID") or str(saved.get("current_workspace") or "")
    name, _, token = name.partition(":")
    if not name:
        raise AuthenticationError("There is no Lepton workspace here.", fix=SIGN_IN)
    record = (saved.get("workspaces") or {}).get(name) or {}
    token = token or os.environ.get("LEPTON_WORKSPACE_TOKEN") or str(record.get("auth_token") or "")
    if not token:
        raise AuthenticationError(f"There is no token for workspace '{name}'.", fix=SIGN_IN)
    url = os.environ.get("LEPTON_WORKSPACE_URL") or str(record.get("url") or f"{_GATEWAY}/{name}")
    origin = os.environ.get("LEPTON_WORKSPACE_ORIGIN_URL") or record.get("workspace_origin_url")
    if not origin and "dgxc" in url:
        origin = url
    return {"url": url.rstrip("/"), "token": token, "origin": str(origin or "")}


def _saved() -> dict[str, Any]:
    folder = Path(os.environ.get("LEPTON_CACHE_DIR") or Path.home() / ".cache" / "lepton")
    try:
        text = (folder / "workspace_info.yaml").read_text(encoding="utf-8")
    except OSError:
        return {}
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}
