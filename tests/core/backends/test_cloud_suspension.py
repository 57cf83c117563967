"""Lepton and Run:ai: a run that is put on hold goes on as the same job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.core.backends.cloud_runs import submit
from tests.core.backends.conftest import Cloud
from tests.system.clouds.runai import FakeRunAI
from tests.system.clouds.runai_place import RunAIPlace
from tunedeck.core.backends.base import Backend, Handle
from tunedeck.core.backends.dgxcloud.client import DISTRIBUTED, TRAINING
from tunedeck.core.backends.local.backend import LocalBackend
from tunedeck.core.backends.suspend import Suspends
from tunedeck.core.errors import NotFoundError, UsageError
from tunedeck.core.launch import cancel, launch
from tunedeck.core.logs.spool import bring_home
from tunedeck.core.plan import Launch
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.runs.suspension import go_on, is_suspended, suspend
from tunedeck.core.runs.watch import look
from tunedeck.core.states import RunState

pytestmark = pytest.mark.slow

LIMIT_S = 120.0

# The first try waits until it is told to stop; the second finds what the first has left. Nodes
# share the folder.
STEP = (
    "cd $TUNEDECK_RUN_DIR; mine=saved$NODE_RANK; if [ -e $mine ];"
    " then echo goes on from $(cat $mine); else echo first try; echo 3 > $mine; sleep 600; fi"
)


async def running(cloud: Cloud, registry: Registry, nodes: int = 1) -> tuple[Backend, RunRecord]:
    plan = cloud.place.plan(STEP, launch=Launch("command", "x", ("sft",), nodes=nodes))
    backend = cloud.place.backend(plan)
    record = await launch(plan, backend.render(plan), backend, registry)
    folder = cloud.storage() / plan.run_id
    await until(lambda: len(list(folder.glob("saved*"))) == nodes)
    return backend, record


async def until(right: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not right():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def end(record: RunRecord, backend: Backend, registry: Registry) -> RunRecord:
    deadline = time.monotonic() + LIMIT_S
    while not (record := await look(record, backend, registry)).state.terminal:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    return record


async def copied(record: RunRecord, backend: Backend) -> list[str]:
    """The log as it is on this machine."""
    assert record.backend_handle is not None
    copying = bring_home(record.backend_handle, backend, record.log, lambda _: None)
    await asyncio.wait_for(copying, LIMIT_S)
    return record.log.read_text().splitlines()


@pytest.mark.parametrize("nodes", [1, 2])
async def test_put_on_hold_the_same_job_goes_on(cloud: Cloud, nodes: int) -> None:
    registry = Registry()
    backend, record = await running(cloud, registry, nodes)
    held = await suspend(record, backend, registry)
    assert (held.state, held.word) == (RunState.PREEMPTED, "Stopped")
    assert f"tunedeck runs resume {record.run_id}" in held.reason
    assert is_suspended(held)
    assert "first try" in await copied(held, backend)
    resumed = await go_on(held, backend, registry)
    assert not resumed.state.terminal
    assert (resumed.job_id, resumed.ended_at) == (record.job_id, None)
    ended = await end(resumed, backend, registry)
    assert (ended.state, ended.exit_code) == (RunState.SUCCEEDED, 0)
    lines = [line for line in await copied(ended, backend) if not line.startswith("[")]
    first, second = lines.index("first try"), lines.index("goes on from 3")
    assert lines.count("first try") == 1
    assert first < second
    assert lines[-1] == "tunedeck: exit=0"
    assert len(cloud.sent()) == 1


async def test_who_watches_it_meanwhile_sees_it_on_hold(cloud: Cloud) -> None:
    registry = Registry()
    backend, stale = await running(cloud, registry)
    await suspend(stale, backend, Registry())
    seen = await look(stale, backend, registry)  # by what was known before
    assert (seen.state, is_suspended(seen)) == (RunState.PREEMPTED, True)


async def test_what_waits_is_put_on_hold_as_well(cloud: Cloud) -> None:
    registry = Registry()
    plan = cloud.place.plan("echo ran", held=True)
    backend = cloud.place.backend(plan)
    record = await launch(plan, backend.render(plan), backend, registry)
    held = await suspend(record, backend, registry)
    assert is_suspended(held)
    cloud.service.held = False
    ended = await end(await go_on(held, backend, registry), backend, registry)
    assert ended.state is RunState.SUCCEEDED


async def test_what_was_cancelled_is_not_on_hold(cloud: Cloud) -> None:
    registry = Registry()
    backend, record = await running(cloud, registry)
    cancelled = await cancel(record, backend, registry)
    assert (cancelled.state, is_suspended(cancelled)) == (RunState.CANCELLED, False)
    with pytest.raises(UsageError, match="was not put on hold"):
        await go_on(cancelled, backend, registry)


async def test_an_answer_that_is_lost_is_asked_for_again(cloud: Cloud) -> None:
    registry = Registry()
    backend, record = await running(cloud, registry)
    cloud.service.fault("POST", "/suspend$", lost=True)
    cloud.service.fault("PATCH", "/jobs/", lost=True)
    held = await suspend(record, backend, registry)
    assert is_suspended(held)
    cloud.service.fault("POST", "/resume$", lost=True)
    cloud.service.fault("PATCH", "/jobs/", lost=True)
    ended = await end(await go_on(held, backend, registry), backend, registry)
    assert ended.state is RunState.SUCCEEDED


@pytest.mark.parametrize("nodes", [1, 2])
async def test_each_kind_has_a_route_of_its_own(
    runai: FakeRunAI, runai_place: RunAIPlace, nodes: int
) -> None:
    plan = runai_place.plan("sleep 600", launch=Launch("command", "x", ("sft",), nodes=nodes))
    backend, handle = await submit(runai_place, plan)
    kind, other = (TRAINING, DISTRIBUTED) if nodes == 1 else (DISTRIBUTED, TRAINING)
    assert isinstance(backend, Suspends)
    await backend.suspend(handle)
    await backend.go_on(handle)
    for verb in ("suspend", "resume"):
        (request,) = runai.sent("POST", f"/{verb}$")
        assert request.path == f"/api/v1/workloads/{kind}/{handle.job_id}/{verb}"
        assert request.reply == 202
    wrong = Handle(handle.run_id, handle.job_id, {**handle.data, "kind": other})
    with pytest.raises(NotFoundError):
        await backend.go_on(wrong)
    await backend.cancel(handle)


async def test_what_has_ended_by_itself_does_not_go_on(
    runai: FakeRunAI, runai_place: RunAIPlace
) -> None:
    backend, handle = await submit(runai_place, runai_place.plan("true"))
    await until(lambda: next(iter(runai.workloads.values())).phase == "Completed")
    assert isinstance(backend, Suspends)
    with pytest.raises(UsageError, match="not suspended"):
        await backend.go_on(handle)


async def test_a_backend_that_cannot_says_what_can_be_done(tmp_path: Path) -> None:
    record = RunRecord(
        run_id="r1", name="x", step="s", config="c", profile="local", backend="local",
        run_dir=tmp_path, created_at=0.0, state=RunState.RUNNING, plan={}, job_id="1", handle={},
    )  # fmt: skip
    with pytest.raises(UsageError, match="cannot be put on hold") as refused:
        await suspend(record, LocalBackend({}), Registry())
    assert "tunedeck runs cancel r1" in refused.value.fix
    assert not is_suspended(record)
