"""Runs of the local backend, started, watched and waited for by its tests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from tunedeck.core.backends.base import Handle, LogLine
from tunedeck.core.backends.local.backend import LocalBackend
from tunedeck.core.plan import Plan
from tunedeck.core.states import Status

LIMIT_S = 60.0

MakePlan = Callable[..., Plan]


def backend_for(plan: Plan) -> LocalBackend:
    return LocalBackend(dict(plan.profile_values))


def start(plan: Plan) -> tuple[LocalBackend, Handle]:
    backend = backend_for(plan)
    return backend, asyncio.run(backend.submit(backend.render(plan)))


def status_of(backend: LocalBackend, handle: Handle) -> Status:
    return asyncio.run(backend.status(handle))


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come about in time")


def end_of(backend: LocalBackend, handle: Handle) -> Status:
    def ended() -> Status | None:
        status = status_of(backend, handle)
        return status if status.state.terminal else None

    found = until(ended)
    assert isinstance(found, Status)
    return found


def lines_of(
    backend: LocalBackend, handle: Handle, cursor: str | None = None, *, follow: bool = True
) -> list[LogLine]:
    async def collect() -> list[LogLine]:
        return [entry async for entry in backend.logs(handle, cursor, follow=follow)]

    return asyncio.run(asyncio.wait_for(collect(), LIMIT_S))


def log_of(plan: Plan) -> bytes:
    path = plan.run_dir / "log.txt"
    return path.read_bytes() if path.exists() else b""


def job_of(plan: Plan) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((plan.run_dir / "job.json").read_text())
    return data


def said(plan: Plan, word: bytes) -> Callable[[], bool]:
    return lambda: word in log_of(plan)


SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
