from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.core.conftest import PlanMaker
from tunedeck.core.backends.base import Handle, load_backend
from tunedeck.core.launch import launch
from tunedeck.core.runs.recover import GIVEN_UP, recover
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState, Status


class _Silent:
    """A backend that never answers a submission; what arrived of it is known later."""

    def __init__(self, arrived: bool) -> None:
        self.arrived = arrived

    async def submit(self, submission: Any) -> Handle:
        await asyncio.sleep(3600)
        raise AssertionError

    async def find(self, run_id: str, run_dir: Path) -> Handle | None:
        return Handle(run_id, "77", {}) if self.arrived else None

    async def status(self, handle: Handle) -> Status:
        return Status(RunState.QUEUED, "PENDING")


@pytest.mark.parametrize(("arrived", "state"), [(True, "queued"), (False, "failed")])
async def test_a_submission_that_was_given_up_is_asked_after_though_its_launcher_lives(
    make_plan: PlanMaker, registry: Registry, arrived: bool, state: str
) -> None:
    plan = make_plan("")
    backend: Any = _Silent(arrived)
    submission = load_backend("local", dict(plan.profile_values)).render(plan)
    sending = asyncio.create_task(launch(plan, submission, backend, registry))
    while not registry.list():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    record = registry.get(plan.run_id)
    assert (record.state, record.word) == (RunState.SUBMITTING, GIVEN_UP)
    assert (await recover(record, backend, registry)).state == state
