from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.core.conftest import PlanMaker
from tests.core.runs.watched import RUNNING, SLEEPER, Cloud, backend_for
from tunedeck.core.backends.base import Handle
from tunedeck.core.errors import TunedeckError
from tunedeck.core.launch import cancel, launch
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.recover import recover
from tunedeck.core.runs.registry import Registry
from tunedeck.core.runs.watch import backend_of, refresh
from tunedeck.core.states import RunState, Status


class TestLaunching:
    def test_a_run_is_recorded_before_it_is_sent(
        self, make_plan: PlanMaker, registry: Registry
    ) -> None:
        plan = make_plan()
        seen: list[RunState] = []

        class Asking(Cloud):
            async def submit(self, submission: object) -> Handle:
                seen.append(registry.get(plan.run_id).state)
                return Handle(plan.run_id, "job-1", {})

        backend = Asking([RUNNING], []).backend
        record = asyncio.run(launch(plan, backend_for(plan).render(plan), backend, registry))
        assert seen == [RunState.SUBMITTING]
        assert (record.state, record.job_id) == (RunState.RUNNING, "job-1")

    def test_a_submission_that_fails_ends_the_run_with_the_reason(
        self, make_plan: PlanMaker, registry: Registry
    ) -> None:
        class Refusing(Cloud):
            async def submit(self, submission: object) -> Handle:
                raise TunedeckError("No such account.")

        plan = make_plan()
        backend = Refusing([], []).backend
        with pytest.raises(TunedeckError, match="account"):
            asyncio.run(launch(plan, backend_for(plan).render(plan), backend, registry))
        record = registry.get(plan.run_id)
        assert (record.state, record.reason) == (RunState.FAILED, "No such account.")

    def test_a_run_cancelled_while_it_is_sent_is_withdrawn(
        self, make_plan: PlanMaker, registry: Registry
    ) -> None:
        plan = make_plan()
        withdrawn: list[Handle] = []

        class Slow(Cloud):
            async def submit(self, submission: object) -> Handle:
                elsewhere = Cloud([], [], found=False).backend
                await cancel(registry.get(plan.run_id), elsewhere, registry)
                return Handle(plan.run_id, "job-1", {})

            async def cancel(self, handle: Handle) -> Status:
                withdrawn.append(handle)
                return Status(RunState.CANCELLED)

        backend = Slow([RUNNING], []).backend
        record = asyncio.run(launch(plan, backend_for(plan).render(plan), backend, registry))
        assert record.state is RunState.CANCELLED
        assert [handle.job_id for handle in withdrawn] == ["job-1"]


def dead_launcher() -> dict[str, object]:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        pass
    return {"pid": process.pid, "started": "1", "boot": "x", "host": platform.node()}


class TestCutOffSubmissions:
    def test_a_launcher_that_lives_is_left_to_it(
        self, make_plan: PlanMaker, registry: Registry
    ) -> None:
        record = RunRecord.of(make_plan(), forced=False)
        registry.add(record)
        assert asyncio.run(recover(record, Cloud([RUNNING], []).backend, registry)) == record

    def test_a_launcher_on_another_machine_is_left_to_it(
        self, make_plan: PlanMaker, registry: Registry
    ) -> None:
        launcher = {**dead_launcher(), "host": "login2"}
        record = replace(RunRecord.of(make_plan(), forced=False), launcher=launcher)
        registry.add(record)
        assert asyncio.run(recover(record, Cloud([RUNNING], []).backend, registry)) == record

    def test_a_job_that_never_arrived(self, make_plan: PlanMaker, registry: Registry) -> None:
        record = replace(RunRecord.of(make_plan(), forced=False), launcher=dead_launcher())
        registry.add(record)
        (after,) = asyncio.run(refresh(registry, [record])).records
        assert after.state is RunState.FAILED
        assert "before the job was submitted" in after.reason

    def test_a_job_that_did_arrive_is_found(self, make_plan: PlanMaker, registry: Registry) -> None:
        plan = make_plan(SLEEPER)
        backend = backend_for(plan)
        record = replace(RunRecord.of(plan, forced=False), launcher=dead_launcher())
        registry.add(record)
        asyncio.run(backend.submit(backend.render(plan)))
        (after,) = asyncio.run(refresh(registry, [record])).records
        assert after.state is RunState.RUNNING
        assert asyncio.run(cancel(after, backend, registry)).state is RunState.CANCELLED

    def test_a_launcher_killed_between_record_and_submission(
        self, make_plan: PlanMaker, registry: Registry, tmp_path: Path
    ) -> None:
        import pickle

        plan = make_plan(SLEEPER)
        pickled = tmp_path / "plan"
        pickled.write_bytes(pickle.dumps(plan))
        script = """
import asyncio, os, pickle, signal, sys
from tunedeck.core.backends.local.backend import LocalBackend
from tunedeck.core.launch import launch
from tunedeck.core.runs.registry import Registry
class Killed(LocalBackend):
    async def submit(self, submission):
        os.kill(os.getpid(), signal.SIGKILL)
plan = pickle.load(open(sys.argv[1], "rb"))
backend = Killed(dict(plan.profile_values))
asyncio.run(launch(plan, backend.render(plan), backend, Registry()))
"""
        done = subprocess.run([sys.executable, "-c", script, str(pickled)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert registry.get(plan.run_id).state is RunState.SUBMITTING
        (after,) = asyncio.run(refresh(registry, registry.list())).records
        assert after.state is RunState.FAILED

    def test_cancelling_what_never_started(self, make_plan: PlanMaker, registry: Registry) -> None:
        record = RunRecord.of(make_plan(), forced=False)
        registry.add(record)
        after = asyncio.run(cancel(record, backend_of(record), registry))
        assert after.state is RunState.CANCELLED
        assert not record.run_dir.exists()


def test_the_launcher_of_a_record_is_this_process(make_plan: PlanMaker) -> None:
    launcher = RunRecord.of(make_plan(), forced=False).launcher
    assert launcher is not None
    assert launcher["pid"] == os.getpid()
