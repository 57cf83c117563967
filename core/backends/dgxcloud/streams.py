"""The three ways to what one pod writes, each from its first line on.

The control plane has no logs. They come from the cluster: by the WebSocket of its API, or by its
Kubernetes API where the profile names that. Where this machine sees the run's volume, the copy that
each pod leaves beside the run's files is read instead.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...errors import NotFoundError
from ..base import Handle
from ..cloud.errors import Passing, refusal, untrusted
from ..cloud.http import ANSWER_S, CONNECT_S, Service, tls
from ..tail import tail
from .client import DISTRIBUTED, SERVICE, SIGN_IN, RunAI
from .watch import status_from

QUIET_S = 20.0
"""Between two pings of the WebSocket, which tell a cut connection from a silent job."""

_LARGEST_MESSAGE = 16 << 20
_FRAMEWORKS = {DISTRIBUTED: "pytorch"}
_MISSING = (404, 409, 503)
"""What a cluster answers while a workload has no pod yet, or none any more."""

_ROLE = re.compile(r"-(master|worker)-(\d+)$")


def copy_of(handle: Handle, node: int = 0) -> Path:
    """The copy of a node's log on the volume, as jobs see it."""
    return Path(handle.data["run_dir"]) / f"log_{node}.txt"


async def over(runai: RunAI, handle: Handle) -> bool:
    """Whether the workload has ended, so that its pods write no more."""
    told = await runai.workload(handle.data["kind"], handle.job_id)
    return told is None or status_from(told).state.terminal


async def node_count(runai: RunAI, handle: Handle) -> int:
    """How many pods write a log: the master and its workers, or the one of a training."""
    if handle.data["kind"] != DISTRIBUTED:
        return 1
    told = await runai.workload(DISTRIBUTED, handle.job_id) or {}
    return 1 + int((told.get("spec") or {}).get("numWorkers") or 0)


async def open_stream(
    runai: RunAI, values: Mapping[str, Any], handle: Handle, node: int, *, wait: bool
) -> AsyncGenerator[bytes]:
    """A node's lines from the first on, by the way that is open to this machine.

    Raises:
        Passing: if it is cut or cannot be reached; the advice names the copy on the volume.
    """
    if values.get("launched_from_cluster"):
        chosen = _from_copy(runai, handle, node, wait=wait)
    elif values.get("kube_apiserver_url"):
        chosen = _from_kubernetes(runai, values, handle, node, wait=wait)
    else:
        chosen = _from_cluster(runai, handle, node)
    try:
        async with aclosing(chosen) as lines:
            async for line in lines:
                yield line
    except Passing as error:
        if copy_of(handle, node).is_file():  # the volume is seen from here after all
            raise
        where = f"A copy of the log is on the volume: {copy_of(handle, node)}"
        raise Passing(
            error.message, acted=error.acted, fix=f"{error.fix} {where}".strip()
        ) from error


async def _from_copy(
    runai: RunAI, handle: Handle, node: int, *, wait: bool
) -> AsyncGenerator[bytes]:
    entries = tail(copy_of(handle, node), 0, lambda: over(runai, handle), follow=wait)
    async with aclosing(entries) as lines:
        async for entry in lines:
            yield entry.line


async def _from_kubernetes(
    runai: RunAI, values: Mapping[str, Any], handle: Handle, node: int, *, wait: bool
) -> AsyncGenerator[bytes]:
    """By `kubectl logs`' own route."""
    pod = await _pod(runai, handle, node)
    if pod is None:
        return

    async def headers() -> Mapping[str, str]:
        return {"Authorization": f"Bearer {await runai.token()}"}

    url = str(values["kube_apiserver_url"])
    service = Service("The cluster's Kubernetes API", url, headers, SIGN_IN, renew=runai.renew)
    path = f"/api/v1/namespaces/runai-{values['project_name']}/pods/{pod}/log"
    try:
        stream = service.stream(path, params={"follow": "true" if wait else "false"}, quiet_s=600)
        async with aclosing(stream) as lines:
            async for line in lines:
                yield line
    except NotFoundError:
        return


async def _from_cluster(runai: RunAI, handle: Handle, node: int) -> AsyncGenerator[bytes]:
    """By the WebSocket of the cluster's API, with its certificate verified."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

    url = await _address(runai, handle, node)
    if url is None:
        return
    for fresh in (False, True):
        if fresh:
            await runai.renew()
        try:
            async with connect(
                url,
                ssl=tls(),
                additional_headers={"Authorization": f"Bearer {await runai.token()}"},
                open_timeout=CONNECT_S,
                ping_interval=QUIET_S,
                ping_timeout=ANSWER_S,
                max_size=_LARGEST_MESSAGE,
            ) as socket:
                pending = b""
                async for message in socket:
                    data = message.encode() if isinstance(message, str) else message
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        yield line
                if pending:
                    yield pending
                return
        except InvalidStatus as error:
            status = error.response.status_code
            if status in _MISSING:
                return
            if status == 401 and not fresh:
                continue
            words = bytes(error.response.body or b"").decode("utf-8", "replace")
            raise refusal("The cluster", status, words, sign_in=SIGN_IN) from error
        except ConnectionClosed as error:
            text = f"The connection to the cluster's log was cut: {error}"
            raise Passing(text, acted=False) from error
        except ssl.SSLCertVerificationError as error:
            raise untrusted("the cluster", error.verify_message) from error
        except (
            *(OSError, TimeoutError, WebSocketException, asyncio.IncompleteReadError),
            ImportError,  # for a SOCKS proxy, which takes a further package
        ) as error:
            text = f"The cluster's log cannot be reached: {error or type(error).__name__}"
            raise Passing(text, acted=False, fix="Check the network to the cluster.") from error


async def _address(runai: RunAI, handle: Handle, node: int) -> str | None:
    """`wss://DOMAIN/cluster-api/…` of a pod's log; None while there is no such pod.

    NVIDIA's page on the cluster API has the path (project, workload type, framework, name). Without
    a pod it is the first one's. How a pod is named in the query is a guess, so what comes is held
    against the line that each of our pods begins with.

    Raises:
        Passing: if the service tells no domain of its cluster.
    """
    project = await runai.project()
    try:
        cluster = await runai.cluster(str(project["clusterId"]))
    except NotFoundError as error:  # the workload is on it, so it is there
        raise Passing(error.message, acted=False) from error
    domain = str(cluster.get("domain") or "").removeprefix("https://").strip("/")
    if not domain or "://" in domain:
        raise Passing(f"{SERVICE} tells no domain of cluster {cluster.get('name')}.", acted=False)
    kind = f"training/{_FRAMEWORKS.get(handle.data['kind'], 'runai')}"
    name = handle.data["name"]
    url = f"wss://{domain}/cluster-api/api/v1/{project['name']}/workloads/{kind}/{name}/logs"
    if node == 0:
        return url
    pod = await _pod(runai, handle, node)
    return pod and f"{url}?podName={quote(pod, safe='')}"


async def _pod(runai: RunAI, handle: Handle, node: int) -> str | None:
    """The name of a node's newest pod; None while there is none."""
    rows = await runai.rows(f"/workloads/{handle.job_id}/pods", "pods")
    rows = sorted(rows, key=lambda row: str(row.get("createdAt") or ""))
    names = [str(row["name"]) for row in rows if not row.get("deletedAt")]
    return next((name for name in reversed(names) if _node_of(name) == node), None)


def _node_of(pod: str) -> int:
    """The node that a pod is: the master is the first, and so is the only pod of a training."""
    role = _ROLE.search(pod)
    return int(role[2]) + 1 if role and role[1] == "worker" else 0
