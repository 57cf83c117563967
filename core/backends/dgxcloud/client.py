"""DGX Cloud Run:ai's control plane: the credential, and what is asked of it.

Paths, fields and phases are those of the OpenAPI document that NVIDIA's own client (runapy) is made
from. What is sent is never logged: it may hold what people put into env_vars.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from functools import cached_property, partial
from typing import Any

from ...errors import AuthenticationError, NotFoundError, UsageError
from ...text import did_you_mean
from ..cloud.errors import Passing
from ..cloud.http import Service

SERVICE = "Run:ai"
SIGN_IN = (
    "Check client_id of the profile and the secret of that application "
    "(Run:ai: Settings, Applications or Service accounts)."
)

TRAINING, DISTRIBUTED = "trainings", "distributed"
"""The two kinds of workload, as their routes name them."""

_MARGIN_S = 60.0
_PAGE = 100
_REFERENCE = re.compile(r"\$\{oc\.env:(\w+)[^}]*\}")


class RunAI:
    """One control plane, with the application that the profile names."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self._token = ""
        self._good_until = 0.0

    @cached_property
    def root(self) -> str:
        """The address of the control plane, without `/api/v1`.

        Raises:
            UsageError: if the profile has none.
        """
        url = str(self.values.get("base_url") or "").rstrip("/")
        if not url.startswith(("https://", "http://")):
            raise UsageError(
                f"base_url '{url}' is no address.",
                fix='Set it to the address of the API: base_url = "https://HOST/api/v1"',
            )
        return url.removesuffix("/v1").removesuffix("/api")

    @cached_property
    def service(self) -> Service:
        """The control plane with a token that is renewed as it runs out."""
        return Service(SERVICE, self.root, self._headers, SIGN_IN, renew=self._renew)

    async def token(self) -> str:
        """A token that is good for a minute at least, for what is not asked through `service`."""
        if time.monotonic() > self._good_until:
            await self._renew()
        return self._token

    async def renew(self) -> None:
        """Get another token, because this one was refused."""
        await self._renew()

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """An answer's JSON; `path` is what follows `/api/v1`."""
        return await self.service.call(method, f"/api/v1{path}", **options)

    async def project(self) -> dict[str, Any]:
        """The profile's project, by its name: `id`, `name`, `clusterId`.

        Raises:
            UsageError: if there is none; with the nearest name.
        """
        wanted = str(self.values.get("project_name") or "")
        rows = await self.rows("/org-unit/projects", "projects")
        department = self.values.get("department")
        found = [row for row in rows if row.get("name") == wanted]
        if department:
            found = [r for r in found if _department(r) in ("", str(department))]
        if found:
            return found[0]
        names = [str(row.get("name")) for row in rows]
        where = f" in department '{department}'" if department and wanted in names else ""
        raise UsageError(
            f"There is no project '{wanted}'{where}. {did_you_mean(wanted, names)}".rstrip(),
            fix=f"Set project_name to one of: {', '.join(sorted(names)) or 'none is there'}.",
        )

    async def cluster(self, uuid: str) -> dict[str, Any]:
        """A cluster: `uuid`, `name`, `domain`.

        Raises:
            NotFoundError: if there is none.
        """
        for row in await self.clusters():
            if row.get("uuid") == uuid:
                return row
        raise NotFoundError(f"Run:ai knows no cluster {uuid}.")

    async def rows(self, path: str, key: str, **params: Any) -> list[dict[str, Any]]:
        """All rows of a list, page by page until one is empty or short."""
        found: list[dict[str, Any]] = []
        while True:
            asked = {"offset": len(found), "limit": _PAGE, **params}
            rows = await self.call("GET", path, params=asked, read=partial(_rows_of, key=key))
            found += rows
            if len(rows) < _PAGE:
                return found

    async def entries(self, path: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The entries of a list of assets, which has no pages."""
        found: list[dict[str, Any]] = await self.call(
            "GET", path, params=params, read=partial(_rows_of, key="entries")
        )
        return found

    async def create(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a workload. Is not sent again by itself.

        Raises:
            Passing: with `acted` if the answer was lost.
        """
        made: dict[str, Any] = await self.call(
            "POST", f"/workloads/{kind}", body=body, safe=False, read=_workload_of
        )
        return made

    async def workload(self, kind: str, workload_id: str) -> dict[str, Any] | None:
        """One workload; None if there is none."""
        try:
            path = f"/workloads/{kind}/{workload_id}"
            told: dict[str, Any] = await self.call("GET", path, read=_workload_of)
        except NotFoundError:
            return None
        return None if told.get("deletedAt") else told

    async def row(self, workload_id: str) -> dict[str, Any] | None:
        """A workload as the list of all kinds tells it, by its id; None if there is none."""
        try:
            found: dict[str, Any] = await self.call(
                "GET", f"/workloads/{workload_id}", read=_row_of
            )
        except NotFoundError:
            return None
        return found

    async def events(self, workload_id: str) -> list[dict[str, Any]]:
        """The newest of what Kubernetes tells of a workload: `reason`, `message`, `createdAt`."""
        asked = {"limit": 1, "sortOrder": "desc"}
        found: list[dict[str, Any]] = await self.call(
            "GET",
            f"/workloads/{workload_id}/events",
            params=asked,
            read=partial(_rows_of, key="events"),
        )
        return found

    async def clusters(self) -> list[dict[str, Any]]:
        """All clusters: `uuid`, `name`, `domain`."""
        found: list[dict[str, Any]] = await self.call(
            "GET", "/clusters", read=partial(_rows_of, key="clusters")
        )
        return found

    async def named(self, name: str) -> dict[str, Any] | None:
        """A workload by its whole name, as the list of all kinds tells it; the newest."""
        asked = {"filterBy": f"name=={name}", "sortBy": "createdAt", "sortOrder": "desc"}
        rows = await self.rows("/workloads", "workloads", **asked)
        live = [row for row in rows if row.get("name") == name and not row.get("deletedAt")]
        return live[0] if live else None

    async def suspend(self, kind: str, workload_id: str) -> None:
        """Stop a workload; its history stays. Each kind has its own route."""
        await self.call("POST", f"/workloads/{kind}/{workload_id}/suspend", safe=True)

    async def resume(self, kind: str, workload_id: str) -> None:
        """Have a suspended workload go on, by its kind's own route.

        Raises:
            UsageError: if it is not suspended, which it also is not once that has been done.
        """
        await self.call("POST", f"/workloads/{kind}/{workload_id}/resume", safe=True)

    async def delete(self, kind: str, workload_id: str) -> None:
        """Remove a workload and its history."""
        await self.call("DELETE", f"/workloads/{kind}/{workload_id}")

    async def _headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {await self.token()}"}

    async def _renew(self) -> None:
        async def none() -> Mapping[str, str]:
            return {}

        try:
            told = await Service(SERVICE, self.root, none, SIGN_IN).call(
                "POST", "/api/v1/token", body=self._credential(), safe=True
            )
        except UsageError as error:  # 400 is what its document has for a wrong credential
            raise AuthenticationError(error.message, fix=SIGN_IN) from error
        if not isinstance(told, dict) or not told.get("accessToken"):
            raise AuthenticationError(f"{SERVICE} gave no token.", fix=SIGN_IN)
        self._token = str(told["accessToken"])
        lasts_s = float(told.get("expiresIn") or 0)
        self._good_until = time.monotonic() + max(lasts_s - _MARGIN_S, lasts_s / 2)

    def _credential(self) -> dict[str, str]:
        """What is sent for a token: of an application by its old names, or of a client."""
        if name := self.values.get("app_id"):
            secret = self._secret("app_secret")
            return {"grantType": "app_token", "AppId": str(name), "AppSecret": secret}
        name = str(self.values.get("client_id") or "")
        if not name:
            text = "The profile names no client_id."
            raise AuthenticationError(text, fix='Add it: client_id = "…"')
        secret = self._secret("client_secret")
        return {"grantType": "client_credentials", "clientId": name, "clientSecret": secret}

    def _secret(self, key: str) -> str:
        """The value of a secret that the profile reads from the environment."""
        written = str(self.values.get(key) or "")
        match = _REFERENCE.fullmatch(written.strip())
        name = match[1] if match else f"DGXCLOUD_{key.upper()}"
        if value := os.environ.get(name):
            return value
        raise AuthenticationError(
            f"The secret of the Run:ai application is not in the environment ({name}).",
            fix=f'export {name}=…, and in the profile: {key} = "${{oc.env:{name}}}"',
        )


def _rows_of(answer: Any, key: str) -> list[dict[str, Any]]:
    """The rows of an answer: a list, or a list under a key."""
    rows = answer.get(key) if isinstance(answer, dict) else answer
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Passing(f"{SERVICE} answered with what makes no sense.", acted=False)
    return rows


def _row_of(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict) or not answer.get("id"):
        raise Passing(f"{SERVICE} answered with what is no workload.", acted=False)
    return answer


def _workload_of(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict) or not answer.get("workloadId"):
        raise Passing(f"{SERVICE} answered with what is no workload.", acted=True)
    return answer


def _department(project: Mapping[str, Any]) -> str:
    parent = project.get("parent") or {}
    return str(project.get("departmentName") or parent.get("name") or "")
