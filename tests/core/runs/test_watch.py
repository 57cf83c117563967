from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.core.conftest import PlanMaker
from tests.core.runs.watched import DONE, LIMIT_S, RUNNING, SLEEPER, Cloud, start
from tunedeck.core.backends.base import Backend, Capabilities, Handle, LogLine
from tunedeck.core.backends.files import RemoteFile
from tunedeck.core.errors import AuthenticationError, ReachError
from tunedeck.core.runs.record import RunRecord
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
    watch,
)
from tunedeck.core.states import RunState, Status


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


FEW_STEPS = """
    import time
    for step in range(1, 4):
        print(f"step={step} loss={4 - step}", flush=True)
        time.sleep(0.05)
"""


class TestWatching:
    def test_a_run_from_its_first_line_to_its_end(
        self, make_plan: PlanMaker, registry: Registry
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

    def test_a_run_that_ended_long_ago(self, make_plan: PlanMaker, registry: Registry) -> None:
        record = start(make_plan(FEW_STEPS), registry)
        first = events_of(record, registry)
        again = events_of(registry.get(record.run_id), registry)
        assert lines_of(again) == lines_of(first)

    def test_from_an_offset(self, make_plan: PlanMaker, registry: Registry) -> None:
        record = start(make_plan(FEW_STEPS), registry)
        lines = [event for event in events_of(record, registry) if isinstance(event, Line)]
        later = events_of(record, registry, offset=lines[1].offset)
        assert lines_of(later) == [b"step=3 loss=1", b"tunedeck: exit=0"]

    def test_leaving_it_leaves_the_run_alone(
        self, make_plan: PlanMaker, registry: Registry
    ) -> None:
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
        self, make_plan: PlanMaker, registry: Registry
    ) -> None:
        script = "import os, signal; print('up', flush=True); os.kill(os.getpid(), 9)"
        events = events_of(start(make_plan(script), registry), registry)
        last = events[-1]
        assert isinstance(last, Changed)
        assert (last.record.state, last.record.exit_code) == (RunState.FAILED, 137)


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

    def test_what_happens_while_nothing_is_logged_is_told_before_the_end(
        self, sent: RunRecord, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tunedeck.core.backends.tail._QUICK_S", 0.3)
        waiting = Status(RunState.QUEUED, "Queued")
        events = events_of(sent, registry, Cloud([waiting, RUNNING, DONE], []).backend)
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
