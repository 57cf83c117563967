"""Runs for the tests of their launch and their watch: real ones here, made-up ones elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

from tunedeck.core.backends.base import Backend, Capabilities, Handle, LogLine, load_backend
from tunedeck.core.errors import ReachError, TunedeckError
from tunedeck.core.launch import launch
from tunedeck.core.plan import Plan
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState, Status

LIMIT_S = 60.0
SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
RUNNING, DONE = Status(RunState.RUNNING, "Running"), Status(RunState.SUCCEEDED, "Completed")


def backend_for(plan: Plan) -> Backend:
    return load_backend(plan.executor, dict(plan.profile_values))


def start(plan: Plan, registry: Registry) -> RunRecord:
    backend = backend_for(plan)
    return asyncio.run(launch(plan, backend.render(plan), backend, registry))


class Cloud:
    """A backend elsewhere in a few lines: its states and log are told as the test says."""

    name = "cloud"
    capabilities = Capabilities(poll_s=0.02)

    def __init__(
        self, states: list[Status | TunedeckError], lines: list[bytes], *, found: bool = True
    ) -> None:
        self.states = states
        self.lines = lines
        self.found = found
        self.dropped = False

    async def find(self, run_id: str, run_dir: Path) -> Handle | None:
        return Handle(run_id, "job-1", {}) if self.found else None

    async def status(self, handle: Handle) -> Status:
        told = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(told, TunedeckError):
            raise told
        return told

    async def logs(
        self, handle: Handle, cursor: str | None, *, follow: bool
    ) -> AsyncGenerator[LogLine]:
        for number in range(int(cursor or 0), len(self.lines)):
            if number == 1 and not self.dropped:
                self.dropped = True
                raise ReachError("The connection was lost.")
            yield LogLine(self.lines[number], str(number + 1))

    @property
    def backend(self) -> Backend:
        return cast(Backend, self)
