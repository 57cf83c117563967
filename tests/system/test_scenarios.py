"""The same scenarios on every backend: each row of the table holds at each place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.system.places import PLACES, Place, alive
from tunedeck.core.backends.base import Backend, Handle
from tunedeck.core.errors import ExitCode
from tunedeck.core.launch import cancel, launch
from tunedeck.core.logs.spool import bring_home
from tunedeck.core.plan import Plan
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.recover import recover
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import resume_selection
from tunedeck.core.states import RunState, Status

LIMIT_S = 300.0


@pytest.fixture(params=sorted(PLACES))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    yield from PLACES[request.param](request)


@pytest.fixture
def registry(home: Path) -> Registry:
    return Registry()


def left_behind(plan: Plan) -> RunRecord:
    """The record of a plan whose launcher has ended."""
    record = RunRecord.of(plan, forced=False)
    assert record.launcher is not None
    return replace(record, launcher={**record.launcher, "started": "0"})


async def submit(place: Place, plan: Plan) -> tuple[Backend, Handle]:
    backend = place.backend(plan)
    return backend, await backend.submit(backend.render(plan))


async def until(backend: Backend, handle: Handle, right: Callable[[Status], bool]) -> Status:
    deadline = time.monotonic() + LIMIT_S
    while not right(status := await backend.status(handle)):
        assert time.monotonic() < deadline, status
        await asyncio.sleep(0.2)
    return status


async def end(backend: Backend, handle: Handle) -> Status:
    return await until(backend, handle, lambda status: status.state.terminal)


async def followed(backend: Backend, handle: Handle) -> list[str]:
    async with asyncio.timeout(LIMIT_S):
        async with aclosing(backend.logs(handle, None, follow=True)) as lines:
            return [entry.line.decode() async for entry in lines]


async def test_it_succeeds_with_the_same_lines(place: Place) -> None:
    plan = place.plan("printf 'one\\n\\n  three \\342\\234\\223\\n'; echo four >&2")
    backend, handle = await submit(place, plan)
    assert await followed(backend, handle) == [
        "one", "", "  three \u2713", "four", "tunedeck: exit=0",
    ]  # fmt: skip
    status = await end(backend, handle)
    assert (status.state, status.exit_code) == (RunState.SUCCEEDED, 0)
    assert status.state.exit_code is ExitCode.OK
    assert status.word
    assert status.started_at is not None


async def test_it_fails_with_its_own_exit_code(place: Place) -> None:
    backend, handle = await submit(place, place.plan("echo no; exit 7"))
    lines = [line for line in await followed(backend, handle) if not line.startswith("srun: ")]
    assert lines == ["no", "tunedeck: exit=7"]
    status = await end(backend, handle)
    assert (status.state, status.exit_code) == (RunState.FAILED, 7)
    assert status.state.exit_code is ExitCode.JOB_FAILED
    assert "7" in status.reason


async def test_saved_and_stopped_before_its_end_it_is_preempted(place: Place) -> None:
    backend, handle = await submit(place, place.plan("exit 75"))
    status = await end(backend, handle)
    assert (status.state, status.exit_code) == (RunState.PREEMPTED, 75)


async def test_each_line_comes_home_once_over_three_drops(place: Place, tmp_path: Path) -> None:
    go = tmp_path / "go"
    plan = place.plan(
        "for part in 1 2 3 4; do"
        '  for i in $(seq 1 30); do echo "part $part line $i"; done;'
        f'  while [ ! -e "{go}$part" ]; do sleep 0.1; done; '
        "done"
    )
    backend, handle = await submit(place, plan)
    home = tmp_path / "log.txt"

    async def follow_until(part: int) -> None:
        """Follow in a process of its own, as it were, and leave it once a part has come."""
        copying = asyncio.ensure_future(bring_home(handle, backend, home, lambda _: None))
        deadline = time.monotonic() + LIMIT_S
        while not (home.exists() and f"part {part} line 30\n".encode() in home.read_bytes()):
            assert time.monotonic() < deadline
            assert not copying.done()
            await asyncio.sleep(0.1)
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)

    for part in (1, 2, 3):
        await follow_until(part)
        place.drop()
        Path(f"{go}{part}").touch()
    Path(f"{go}4").touch()
    await asyncio.wait_for(bring_home(handle, backend, home, lambda _: None), LIMIT_S)
    expected = [f"part {part} line {line}" for part in (1, 2, 3, 4) for line in range(1, 31)]
    assert home.read_text().splitlines() == [*expected, "tunedeck: exit=0"]
    assert place.jobs_of(plan) == 1


async def test_cancelled_while_it_waits_it_never_runs(
    place: Place, registry: Registry, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    plan = place.plan(f"touch {ran}", held=place.queues)
    backend = place.backend(plan)
    if not place.queues:  # what can be cancelled is a run that its launcher has yet to submit
        record = RunRecord.of(plan, forced=False)
        registry.add(record)
        cancelled = await cancel(record, backend, registry)
    else:
        record = await launch(plan, backend.render(plan), backend, registry)
        assert record.state is RunState.QUEUED
        cancelled = await cancel(record, backend, registry)
        assert record.backend_handle is not None
        assert (await backend.status(record.backend_handle)).state is RunState.CANCELLED
    assert cancelled.state is RunState.CANCELLED
    assert cancelled.state.exit_code is ExitCode.CANCELLED
    assert not ran.exists()


async def test_cancelled_while_it_runs_nothing_of_it_is_left(place: Place, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    backend, handle = await submit(
        place, place.plan(f"sleep 600 & echo $! > {mark}.new; mv {mark}.new {mark}; wait")
    )
    deadline = time.monotonic() + LIMIT_S
    while not mark.exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    await until(backend, handle, lambda status: status.state is RunState.RUNNING)
    status = await backend.cancel(handle)
    assert status.state is RunState.CANCELLED
    while alive(int(mark.read_text())):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    assert (await backend.cancel(handle)).state is RunState.CANCELLED


async def test_it_is_resumed_as_a_new_job_from_its_last_checkpoint(
    place: Place, registry: Registry
) -> None:
    first = place.plan(
        "mkdir -p $TUNEDECK_RUN_DIR/checkpoints/step_000002; cd $TUNEDECK_RUN_DIR/checkpoints;"
        " echo state of two > step_000002/state; ln -s step_000002 latest; exit 75"
    )
    backend = place.backend(first)
    record = await launch(first, backend.render(first), backend, registry)
    assert record.backend_handle is not None
    record = registry.update(first.run_id, await end(backend, record.backend_handle))
    assert record.state is RunState.PREEMPTED
    selection = resume_selection(record, ())
    key, _, path = selection.overrides[0].partition("=")
    assert key == "checkpoint.restore_from"
    again = place.plan("cat \"$(sed -n 's/ *restore_from: //p' {config})/state\"", restore=path)
    backend, handle = await submit(place, again)
    assert "state of two" in await followed(backend, handle)
    assert (await end(backend, handle)).state is RunState.SUCCEEDED


async def test_a_launcher_killed_between_submission_and_answer_leaves_one_job(
    place: Place, registry: Registry, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    plan = place.plan(f"while [ ! -e {go} ]; do sleep 0.1; done")
    backend = place.backend(plan)
    submission = backend.render(plan)
    record = left_behind(plan)
    registry.add(record)
    handle = await backend.submit(submission)  # and the launcher ends before it writes that down
    found = await recover(registry.get(plan.run_id), place.backend(plan), registry)
    assert found.job_id == handle.job_id
    assert not found.state.terminal
    assert (await backend.submit(submission)).job_id == handle.job_id
    assert place.jobs_of(plan) == 1
    go.touch()
    assert (await end(backend, handle)).state is RunState.SUCCEEDED


async def test_a_launcher_killed_before_submission_leaves_no_job(
    place: Place, registry: Registry
) -> None:
    plan = place.plan("true")
    record = left_behind(plan)
    registry.add(record)
    found = await recover(record, place.backend(plan), registry)
    assert found.state is RunState.FAILED
    assert place.jobs_of(plan) == 0
