"""What has become of a job on Hugging Face, and what it writes."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ...errors import NotFoundError
from ...states import RunState, Status
from ..base import Handle, LogLine
from ..cloud.errors import Passing
from ..cloud.follow import follow
from ..ending import exit_code_in, with_exit_code
from .client import Hub

QUIET_S = 90.0
"""The service says that a stream is alive every 30 s."""

_STATES = {
    "SCHEDULING": RunState.QUEUED,
    "RUNNING": RunState.RUNNING,
    "COMPLETED": RunState.SUCCEEDED,
    "CANCELED": RunState.CANCELLED,
    "ERROR": RunState.FAILED,
    "DELETED": RunState.LOST,
}
_GONE = "the service knows no such job any more"
_CODE = re.compile(r"exit code:? (\d{1,3})\b", re.IGNORECASE)
_SERVICES_OWN = "===== Job started"
_TAIL = 20


async def status_of(hub: Hub, handle: Handle) -> Status:
    """The service's word, and of a job that has ended the exit code, by its own last word."""
    try:
        job = await hub.call(
            "inspect_job", job_id=handle.job_id, namespace=handle.data["namespace"]
        )
    except NotFoundError:
        return Status(RunState.LOST, "", _GONE)
    status = status_from(job)
    if status.state not in (RunState.SUCCEEDED, RunState.FAILED):
        return status
    return with_exit_code(status, await _exit_code(hub, handle, status))


def status_from(job: Any) -> Status:
    """What the service itself says of a job. A stage that is new to us counts as running."""
    stage = str(getattr(job.status.stage, "value", job.status.stage))
    return Status(
        _STATES.get(stage, RunState.RUNNING),
        stage,
        job.status.message or "",
        started_at=_moment(job, "started_at"),
        ended_at=_moment(job, "finished_at"),
    )


def logs(hub: Hub, handle: Handle, cursor: str | None, *, wait: bool) -> AsyncGenerator[LogLine]:
    """Lines of a job's log. The cursor counts the service's events from the first.

    Every stream of the service begins with the first event again; those that were seen are passed
    over by their number, as its own client does it.
    """

    async def ended() -> bool:
        try:
            job = await hub.call(
                "inspect_job", job_id=handle.job_id, namespace=handle.data["namespace"]
            )
        except NotFoundError:
            return True
        return status_from(job).state.terminal

    return follow(lambda at: _stream(hub, handle, int(at or 0)), cursor, ended, wait=wait)


async def _stream(
    hub: Hub, handle: Handle, seen: int, *, last: int | None = None
) -> AsyncGenerator[LogLine]:
    path = f"/api/jobs/{handle.data['namespace']}/{handle.job_id}/logs"
    params = None if last is None else {"tail": last}
    count = 0
    try:
        async with aclosing(hub.streams.stream(path, params=params, quiet_s=QUIET_S)) as lines:
            async for line in lines:
                if not line.startswith(b"data:"):
                    continue
                count += 1
                text = _text(line)
                if count > seen and not text.startswith(_SERVICES_OWN):
                    yield LogLine(text.encode("utf-8", "surrogatepass"), str(count))
    except NotFoundError:
        return  # a job that has not begun has no log yet


def _text(line: bytes) -> str:
    """The log line of one event.

    Raises:
        Passing: if the event was cut off.
    """
    try:
        text = json.loads(line.removeprefix(b"data:"))["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise Passing("Hugging Face sent half a log line.", acted=True) from error
    return str(text).removesuffix("\n")


async def _exit_code(hub: Hub, handle: Handle, status: Status) -> int | None:
    if status.state is RunState.SUCCEEDED:
        return 0
    if found := _CODE.search(status.reason):
        return int(found[1])

    async def yes() -> bool:
        return True

    try:
        tail = follow(lambda _: _stream(hub, handle, 0, last=_TAIL), None, yes, wait=False)
        return exit_code_in([entry.line async for entry in tail])
    except Passing:
        return None


def _moment(job: Any, name: str) -> float | None:
    moment = getattr(job, name, None)  # versions before 1.31 do not tell
    return None if moment is None else moment.timestamp()
