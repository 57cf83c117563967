"""What a workload on Run:ai writes.

The control plane has no logs. They come from the cluster: by its WebSocket, or by its Kubernetes
API where the profile names that. Where this machine sees the run's volume, the copy that each job
leaves beside its files is read instead. All three hold the same lines from the first on, so that
one cursor, the number of lines that were seen, serves them all.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from ...errors import AuthenticationError, NotFoundError, TunedeckError
from ...tail import tail
from ..base import Handle, LogLine
from ..cloud.ending import exit_code_in
from ..cloud.errors import Passing, refusal
from ..cloud.follow import follow
from ..cloud.http import ANSWER_S, CONNECT_S, Service, tls
from .client import DISTRIBUTED, SERVICE, SIGN_IN, RunAI
from .watch import status_from

QUIET_S = 20.0
"""Between two pings of the WebSocket, which tell a cut connection from a silent job."""

_LARGEST_MESSAGE = 16 << 20
_FRAMEWORKS = {DISTRIBUTED: "pytorch"}
_MISSING = (404, 409, 503)
"""What a cluster answers while a workload has no pod yet, or none any more."""


def logs(
    runai: RunAI, values: Mapping[str, Any], handle: Handle, cursor: str | None, *, wait: bool
) -> AsyncGenerator[LogLine]:
    """Lines of a workload's log after a cursor, each once; with `wait`, until it has ended."""

    async def ended() -> bool:
        told = await runai.workload(handle.data["kind"], handle.job_id)
        return told is None or status_from(told).state.terminal

    def stream(at: str | None) -> AsyncGenerator[LogLine]:
        return _numbered(_source(runai, values, handle, wait=wait), int(at or 0))

    return follow(stream, cursor, ended, wait=wait)


async def exit_code(runai: RunAI, handle: Handle) -> int | None:
    """What the last word of a workload that has ended says; None if it cannot be read."""

    async def yes() -> bool:
        return True

    def stream(at: str | None) -> AsyncGenerator[LogLine]:
        return _numbered(_source(runai, runai.values, handle, wait=False), int(at or 0))

    try:
        entries = follow(stream, None, yes, wait=False)
        return exit_code_in([entry.line async for entry in entries])
    except TunedeckError:
        return None


def copy_of(handle: Handle) -> Path:
    """The copy of a log on the volume, as jobs see it."""
    return Path(handle.data["run_dir"]) / "log_0.txt"


async def _numbered(lines: AsyncGenerator[bytes], seen: int) -> AsyncGenerator[LogLine]:
    """Lines after those that were seen. Each way begins with the first line again."""
    count = 0
    async with aclosing(lines):
        async for line in lines:
            count += 1
            if count > seen:
                yield LogLine(line, str(count))


async def _source(
    runai: RunAI, values: Mapping[str, Any], handle: Handle, *, wait: bool
) -> AsyncGenerator[bytes]:
    """The log from its first line on, by the way that is open to this machine."""
    if values.get("launched_from_cluster"):
        chosen = _from_copy(runai, handle, wait=wait)
    elif values.get("kube_apiserver_url"):
        chosen = _from_kubernetes(runai, str(values["kube_apiserver_url"]), values, handle, wait)
    else:
        chosen = _from_cluster(runai, handle)
    try:
        async with aclosing(chosen) as lines:
            async for line in lines:
                yield line
    except Passing as error:
        if copy_of(handle).is_file():  # the volume is seen from here after all
            raise
        where = f"A copy of the log is on the volume: {copy_of(handle)}"
        raise Passing(
            error.message, acted=error.acted, fix=f"{error.fix} {where}".strip()
        ) from error


async def _from_copy(runai: RunAI, handle: Handle, *, wait: bool) -> AsyncGenerator[bytes]:
    async def ended() -> bool:
        told = await runai.workload(handle.data["kind"], handle.job_id)
        return told is None or status_from(told).state.terminal

    async with aclosing(tail(copy_of(handle), 0, ended, follow=wait)) as entries:
        async for entry in entries:
            yield entry.line


async def _from_kubernetes(
    runai: RunAI, url: str, values: Mapping[str, Any], handle: Handle, wait: bool
) -> AsyncGenerator[bytes]:
    """By `kubectl logs`' own route: the first pod, from its first line on."""
    pods = await runai.rows(f"/workloads/{handle.job_id}/pods", "pods")
    names = sorted(str(pod["name"]) for pod in pods)
    masters = [name for name in names if "master" in name] or names
    if not masters:
        return

    async def headers() -> Mapping[str, str]:
        return {"Authorization": f"Bearer {await runai.token()}"}

    service = Service("The cluster's Kubernetes API", url, headers, SIGN_IN, renew=runai.renew)
    path = f"/api/v1/namespaces/runai-{values['project_name']}/pods/{masters[0]}/log"
    try:
        stream = service.stream(path, params={"follow": "true" if wait else "false"}, quiet_s=600)
        async with aclosing(stream) as lines:
            async for line in lines:
                yield line
    except NotFoundError:
        return


async def _from_cluster(runai: RunAI, handle: Handle) -> AsyncGenerator[bytes]:
    """By the WebSocket of the cluster, with its certificate verified.

    The last part of its path for distributed workloads is a guess; of one node it is known.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

    url = await _address(runai, handle)
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
            raise AuthenticationError(
                f"The certificate of the cluster is not trusted: {error.verify_message}",
                fix="Name its authority's certificate: export SSL_CERT_FILE=…",
            ) from error
        except (OSError, TimeoutError, WebSocketException, asyncio.IncompleteReadError) as error:
            text = f"The cluster's log cannot be reached: {error or type(error).__name__}"
            raise Passing(text, acted=False, fix="Check the network to the cluster.") from error


async def _address(runai: RunAI, handle: Handle) -> str:
    """`wss://DOMAIN/cluster-api/…` of a workload's log.

    Raises:
        Passing: if the service tells no domain of its cluster.
    """
    project = await runai.project()
    cluster = await runai.cluster(str(project["clusterId"]))
    domain = str(cluster.get("domain") or "").removeprefix("https://").strip("/")
    if not domain or "://" in domain:
        raise Passing(f"{SERVICE} tells no domain of cluster {cluster.get('name')}.", acted=False)
    kind = f"training/{_FRAMEWORKS.get(handle.data['kind'], 'runai')}"
    name = handle.data["name"]
    return f"wss://{domain}/cluster-api/api/v1/{project['name']}/workloads/{kind}/{name}/logs"
