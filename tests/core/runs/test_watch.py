from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from tunedeck.core.backends.base import Backend, Capabilities, Handle, LogLine, load_backend
from tunedeck.core.backends.files import RemoteFile
from tunedeck.core.errors import AuthenticationError, ReachError, TunedeckError
from tunedeck.core.launch import cancel, launch
from tunedeck.core.plan import Plan
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.recover import recover
from tunedeck.core.runs.registry import Registry
from tunedeck.core.runs.watch import (
    Changed,
    Event,
    Fine,
    Line,
    Measured,
    Trouble,
    backend_of,
    look,
    refresh,
    wait_until_ended,
    watch,
)
from tunedeck.core.states import RunState, Status

MakePlan = Callable[..., Plan]
LIMIT_S = 20.0


def backend_for(plan: Plan) -> Backend:
    return load_backend(plan.executor, dict(plan.profile_values))


def start(plan: Plan, registry: Registry) -> RunRecord:
    backend = backend_for(plan)
    return asyncio.run(launch(plan, backend.render(plan), backend, registry))


def events_of(
    record: RunRecord, registry: Registry, backend: Backend | None = None, offset: int = 0
) -> list[Event]:
    async def collect() -> list[Event]:
        seen = watch(record, backend or backend_of(record), registry, offset=offset)
        async with aclosing(seen):
            return [event async for event in seen]

    return asyncio.run(asyncio.wait_for(collect(), LIMIT_S))


def lines_of(events: list[Event]) -> list[bytes]:
    return [event.line for event in events if isinstance(event, Line)]


SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
FEW_STEPS = """
    import time
    for step in range(1, 4):
        print(f"step={step} loss={4 - step}", flush=True)
        time.sleep(0.05)
"""


class TestWatching:
    def test_a_run_from_its_first_line_to_its_end(
        self, make_plan: MakePlan, registry: Registry
    ) -> None:
        record = start(make_plan(FEW_STEPS), registry)
        events = events_of(record, registry)
        assert lines_of(events) == [
            b"step=1 loss=3",
            b"step=2 loss=2",
            b"step=3 loss=1",
            b"tunedeck: exit=0",
        ]
        assert [e.point["loss"] for e in events if isinstance(e, Measured)] == [3, 2, 1]
        last = events[-1]
        assert isinstance(last, Changed)
        assert last.record.state is RunState.SUCCEEDED
        assert registry.get(record.run_id) == last.record

    def test_a_run_that_ended_long_ago(self, make_plan: MakePlan, registry: Registry) -> None:
        record = start(make_plan(FEW_STEPS), registry)
        first = events_of(record, registry)
        again = events_of(registry.get(record.run_id), registry)
        assert lines_of(again) == lines_of(first)

    def test_from_an_offset(self, make_plan: MakePlan, registry: Registry) -> None:
        record = start(make_plan(FEW_STEPS), registry)
        lines = [event for event in events_of(record, registry) if isinstance(event, Line)]
        later = events_of(record, registry, offset=lines[1].offset)
        assert lines_of(later) == [b"step=3 loss=1", b"tunedeck: exit=0"]

    def test_leaving_it_leaves_the_run_alone(self, make_plan: MakePlan, registry: Registry) -> None:
        record = start(make_plan(SLEEPER), registry)

        async def look_in() -> None:
            async with aclosing(watch(record, backend_of(record), registry)) as events:
                async for event in events:
                    if isinstance(event, Line):
                        return

        asyncio.run(asyncio.wait_for(look_in(), LIMIT_S))
        (now,) = asyncio.run(refresh(registry, [record])).records
        assert now.state is RunState.RUNNING

    def test_a_trainer_killed_while_it_is_watched(
        self, make_plan: MakePlan, registry: Registry
    ) -> None:
        script = "import os, signal; print('up', flush=True); os.kill(os.getpid(), 9)"
        events = events_of(start(make_plan(script), registry), registry)
        last = events[-1]
        assert isinstance(last, Changed)
        assert (last.record.state, last.record.exit_code) == (RunState.FAILED, 137)


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


RUNNING, DONE = Status(RunState.RUNNING, "Running"), Status(RunState.SUCCEEDED, "Completed")


@pytest.fixture
def sent(make_plan: MakePlan, registry: Registry) -> RunRecord:
    record = replace(RunRecord.of(make_plan(), forced=False), job_id="job-1", handle={})
    registry.add(record)
    return record


class TestElsewhere:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tunedeck.core.logs.spool._FIRST_RETRY_S", 0.01)
        monkeypatch.setattr("tunedeck.core.runs.watch._DRAIN_S", 2.0)

    def test_a_log_elsewhere_is_brought_home_and_told(
        self, sent: RunRecord, registry: Registry
    ) -> None:
        cloud = Cloud([Status(RunState.QUEUED, "Queued", "Priority"), RUNNING, DONE], [b"a", b"b"])
        events = events_of(sent, registry, cloud.backend)
        assert lines_of(events) == [b"a", b"b"]
        assert sent.log.read_bytes() == b"a\nb\n"
        assert any(isinstance(event, Trouble) for event in events)
        states = [event.record.state for event in events if isinstance(event, Changed)]
        assert states == [RunState.QUEUED, RunState.RUNNING, RunState.SUCCEEDED]

    @pytest.mark.parametrize(
        ("lines", "state", "code"),
        [
            ([b"step=1", b"tunedeck: exit=0"], RunState.SUCCEEDED, 0),
            ([b"oh no", b"tunedeck: exit=3", b"", b"[1] tunedeck: exit=143"], RunState.FAILED, 3),
            ([b"tunedeck: exit=0", b"[1] tunedeck: exit=1"], RunState.FAILED, 1),
            ([b"tunedeck: exit=75"], RunState.PREEMPTED, 75),
            ([b"tunedeck: exit=75", b"step=2"], RunState.LOST, None),
            ([b"[1] tunedeck: exit=0"], RunState.LOST, None),
        ],
        ids=["good", "failed", "another node failed", "saved", "begun again", "cut off"],
    )
    def test_what_a_service_has_forgotten_is_known_by_the_last_word_of_its_log(
        self,
        sent: RunRecord,
        registry: Registry,
        lines: list[bytes],
        state: RunState,
        code: int | None,
    ) -> None:
        sent.log.parent.mkdir(parents=True, exist_ok=True)
        sent.log.write_bytes(b"\n".join(lines) + b"\n")
        registry.update(sent.run_id, RUNNING)
        lost = Cloud([Status(RunState.LOST, "", "the service knows no such job any more")], [])
        seen = asyncio.run(look(registry.get(sent.run_id), lost.backend, registry))
        assert (seen.state, seen.exit_code) == (state, code)

    def test_a_lost_connection_is_no_end(self, sent: RunRecord, registry: Registry) -> None:
        lost = ReachError("No route to host.")
        events = events_of(sent, registry, Cloud([RUNNING, lost, lost, DONE], [b"a"]).backend)
        assert isinstance(events[-1], Changed)
        assert events[-1].record.state is RunState.SUCCEEDED
        assert sum("No route" in e.text for e in events if isinstance(e, Trouble)) == 2

    def test_it_is_told_that_what_was_in_trouble_answers_again(
        self, sent: RunRecord, registry: Registry
    ) -> None:
        lost = ReachError("No route to host.")
        events = events_of(sent, registry, Cloud([lost, RUNNING, RUNNING, DONE], []).backend)
        kinds = [type(event) for event in events if isinstance(event, Trouble | Fine)]
        assert kinds[-1] is Fine
        assert kinds.count(Fine) == 1

    def test_the_result_is_home_before_the_end_is_known(
        self, sent: RunRecord, registry: Registry
    ) -> None:
        known: list[RunState] = []

        class Keeps(Cloud):
            async def files(self, handle: Handle) -> Sequence[RemoteFile]:
                return [RemoteFile("result.json", 2)]

            async def fetch(
                self, handle: Handle, name: str, target: Path, offset: int, on_bytes: object
            ) -> None:
                known.append(registry.get(handle.run_id).state)
                target.write_bytes(b"{}")

        events_of(sent, registry, Keeps([RUNNING, DONE], []).backend)
        assert known == [RunState.RUNNING]
        assert (sent.run_dir / "result.json").read_bytes() == b"{}"

    def test_a_refusal_is_told(self, sent: RunRecord, registry: Registry) -> None:
        refused = AuthenticationError("The token is no longer valid.")
        with pytest.raises(AuthenticationError):
            events_of(sent, registry, Cloud([RUNNING, refused], []).backend)

    def test_a_log_that_never_ends_does_not_hold_up_the_end(
        self, sent: RunRecord, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Frozen(Cloud):
            async def logs(
                self, handle: Handle, cursor: str | None, *, follow: bool
            ) -> AsyncGenerator[LogLine]:
                yield LogLine(b"a", "1")
                await asyncio.sleep(3600)

        monkeypatch.setattr("tunedeck.core.runs.watch._DRAIN_S", 0.1)
        events = events_of(sent, registry, Frozen([DONE], []).backend)
        assert lines_of(events) == [b"a"]
        assert isinstance(events[-1], Changed)

    def test_it_looks_more_rarely_while_nothing_changes(
        self, sent: RunRecord, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Quiet(Cloud):
            capabilities = Capabilities(poll_s=10.0)

            async def logs(
                self, handle: Handle, cursor: str | None, *, follow: bool
            ) -> AsyncGenerator[LogLine]:
                await asyncio.sleep(3600)
                yield LogLine(b"", "0")

        pauses: list[float] = []

        async def pause(_eye: object, seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(0)

        monkeypatch.setattr("tunedeck.core.runs.watch._DRAIN_S", 0.1)
        monkeypatch.setattr("tunedeck.core.runs.watch._Eye._pause", pause)
        waiting = Status(RunState.QUEUED, "Queued")
        events_of(sent, registry, Quiet([*[waiting] * 12, RUNNING, DONE], []).backend)
        first, *queued, running = pauses[:13]
        assert first == 10.0
        assert queued == sorted(queued)
        assert queued[-1] == 60.0
        assert running == 10.0

    def test_a_run_that_waited_is_looked_at_as_soon_as_it_says_something(
        self, sent: RunRecord, registry: Registry
    ) -> None:
        class Sparing(Cloud):
            capabilities = Capabilities(poll_s=1000.0)

        waiting = Status(RunState.QUEUED, "Queued")
        events = events_of(sent, registry, Sparing([waiting, DONE], [b"a"]).backend)
        assert isinstance(events[-1], Changed)
        assert events[-1].record.state is RunState.SUCCEEDED


class TestRefresh:
    def test_what_ended_meanwhile_is_known(self, make_plan: MakePlan, registry: Registry) -> None:
        records = [start(make_plan(f"raise SystemExit({code})"), registry) for code in (0, 7)]
        ended = [asyncio.run(wait_until_ended(r, registry, LIMIT_S)) for r in records]
        assert [r.state for r in ended] == [RunState.SUCCEEDED, RunState.FAILED]
        assert asyncio.run(refresh(registry, records)).records == ended

    def test_a_backend_that_cannot_be_asked_changes_nothing(
        self, sent: RunRecord, registry: Registry
    ) -> None:
        unknown = replace(sent, backend="elsewhere")
        refreshed = asyncio.run(refresh(registry, [unknown]))
        assert refreshed.records == [unknown]
        assert "elsewhere" in refreshed.notes[0]

    def test_many_runs_of_a_service_share_a_backend_and_are_asked_about_a_few_at_a_time(
        self, sent: RunRecord, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, at_once = list[int](), list[int]()

        class Busy(Cloud):
            async def status(self, handle: Handle) -> Status:
                asked.append(1)
                at_once.append(len(asked))
                await asyncio.sleep(0)
                asked.pop()
                raise ReachError("No route to host.")

        made = list[Busy]()

        def backend_for_record(_record: RunRecord) -> Backend:
            made.append(Busy([RUNNING], []))
            return made[-1].backend

        monkeypatch.setattr("tunedeck.core.runs.watch.backend_of", backend_for_record)
        records = [replace(sent, run_id=f"{sent.run_id}{number}") for number in range(50)]
        refreshed = asyncio.run(refresh(registry, records))
        assert refreshed.records == records
        assert refreshed.notes == [f"{records[0].run_id} and 49 more: No route to host."]
        assert (len(made), len(at_once)) == (1, 50)
        assert 1 < max(at_once) <= 16

    def test_waiting_ends_with_the_time(self, make_plan: MakePlan, registry: Registry) -> None:
        record = start(make_plan(SLEEPER), registry)
        after = asyncio.run(wait_until_ended(record, registry, 0.2))
        assert after.state is RunState.RUNNING


class TestLaunching:
    def test_a_run_is_recorded_before_it_is_sent(
        self, make_plan: MakePlan, registry: Registry
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
        self, make_plan: MakePlan, registry: Registry
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
        self, make_plan: MakePlan, registry: Registry
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
        self, make_plan: MakePlan, registry: Registry
    ) -> None:
        record = RunRecord.of(make_plan(), forced=False)
        registry.add(record)
        assert asyncio.run(recover(record, Cloud([RUNNING], []).backend, registry)) == record

    def test_a_launcher_on_another_machine_is_left_to_it(
        self, make_plan: MakePlan, registry: Registry
    ) -> None:
        launcher = {**dead_launcher(), "host": "login2"}
        record = replace(RunRecord.of(make_plan(), forced=False), launcher=launcher)
        registry.add(record)
        assert asyncio.run(recover(record, Cloud([RUNNING], []).backend, registry)) == record

    def test_a_job_that_never_arrived(self, make_plan: MakePlan, registry: Registry) -> None:
        record = replace(RunRecord.of(make_plan(), forced=False), launcher=dead_launcher())
        registry.add(record)
        (after,) = asyncio.run(refresh(registry, [record])).records
        assert after.state is RunState.FAILED
        assert "before the job was submitted" in after.reason

    def test_a_job_that_did_arrive_is_found(self, make_plan: MakePlan, registry: Registry) -> None:
        plan = make_plan(SLEEPER)
        backend = backend_for(plan)
        record = replace(RunRecord.of(plan, forced=False), launcher=dead_launcher())
        registry.add(record)
        asyncio.run(backend.submit(backend.render(plan)))
        (after,) = asyncio.run(refresh(registry, [record])).records
        assert after.state is RunState.RUNNING
        assert asyncio.run(cancel(after, backend, registry)).state is RunState.CANCELLED

    def test_a_launcher_killed_between_record_and_submission(
        self, make_plan: MakePlan, registry: Registry, tmp_path: Path
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

    def test_cancelling_what_never_started(self, make_plan: MakePlan, registry: Registry) -> None:
        record = RunRecord.of(make_plan(), forced=False)
        registry.add(record)
        after = asyncio.run(cancel(record, backend_of(record), registry))
        assert after.state is RunState.CANCELLED
        assert not record.run_dir.exists()


def test_the_launcher_of_a_record_is_this_process(make_plan: MakePlan) -> None:
    launcher = RunRecord.of(make_plan(), forced=False).launcher
    assert launcher is not None
    assert launcher["pid"] == os.getpid()
