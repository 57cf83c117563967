from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.core.conftest import PlanMaker
from tunedeck.core.backends.base import Capabilities, Handle, load_backend
from tunedeck.core.errors import ReachError
from tunedeck.core.launch import launch
from tunedeck.core.plan import Plan
from tunedeck.core.runs.recover import GIVEN_UP, recover
from tunedeck.core.runs.registry import Registry
from tunedeck.core.runs.watch import look
from tunedeck.core.states import RunState, Status
from tunedeck.core.submission import Submission


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
    sending = asyncio.create_task(launch(plan, _submission(plan), backend, registry))
    while not registry.list():
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    record = registry.get(plan.run_id)
    assert (record.state, record.word) == (RunState.SUBMITTING, GIVEN_UP)
    assert (await recover(record, backend, registry)).state == state


class _CutOff(_Silent):
    """A backend whose answer to a submission, or to what comes after it, is lost on the way."""

    def __init__(self, *, arrived: bool, answers: bool) -> None:
        super().__init__(arrived)
        self.answers = answers

    async def submit(self, submission: Any) -> Handle:
        if not self.answers:
            raise ReachError("the network is away", fix="Wait.")
        return Handle(submission.run_id, "77", {})

    async def status(self, handle: Handle) -> Status:
        if self.answers:
            raise ReachError("the network is away")
        return await super().status(handle)


@pytest.mark.parametrize(("arrived", "state"), [(True, "queued"), (False, "failed")])
async def test_a_submission_whose_answer_was_lost_is_not_said_to_have_failed(
    make_plan: PlanMaker, registry: Registry, arrived: bool, state: str
) -> None:
    plan = make_plan("")
    backend: Any = _CutOff(arrived=arrived, answers=False)
    with pytest.raises(ReachError) as told:
        await launch(plan, _submission(plan), backend, registry)
    assert f"tunedeck runs show {plan.run_id}" in told.value.fix
    record = registry.get(plan.run_id)
    assert (record.state, record.word) == (RunState.SUBMITTING, GIVEN_UP)
    found = await recover(record, backend, registry)
    assert found.state == state
    assert arrived or found.reason == "it did not arrive: the network is away"


async def test_a_run_that_was_taken_is_launched_though_the_network_goes_away_then(
    make_plan: PlanMaker, registry: Registry
) -> None:
    plan = make_plan("")
    backend: Any = _CutOff(arrived=True, answers=True)
    record = await launch(plan, _submission(plan), backend, registry)
    assert record.job_id == "77"
    assert not record.state.terminal


class _Lagging(_CutOff):
    """A backend that takes a while to list what it has taken."""

    capabilities = Capabilities()

    async def status(self, handle: Handle) -> Status:
        return Status(RunState.LOST, reason="no such job")


async def test_a_run_that_was_just_taken_is_not_lost_because_it_is_not_listed_yet(
    make_plan: PlanMaker, registry: Registry
) -> None:
    plan = make_plan("")
    backend: Any = _Lagging(arrived=True, answers=True)
    record = await launch(plan, _submission(plan), backend, registry)
    assert (await look(record, backend, registry)).state is RunState.SUBMITTING
    late = replace(record, created_at=record.created_at - 3600)
    assert (await look(late, backend, registry)).state is RunState.LOST


def _submission(plan: Plan) -> Submission:
    return load_backend("local", dict(plan.profile_values)).render(plan)
