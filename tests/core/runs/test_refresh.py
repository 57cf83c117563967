from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.core.conftest import PlanMaker
from tests.core.runs.watched import LIMIT_S, RUNNING, SLEEPER, Cloud, start
from tunedeck.core.backends.base import Backend, Handle
from tunedeck.core.errors import ReachError
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.runs.watch import refresh, wait_until_ended
from tunedeck.core.states import RunState, Status


def test_what_ended_meanwhile_is_known(make_plan: PlanMaker, registry: Registry) -> None:
    records = [start(make_plan(f"raise SystemExit({code})"), registry) for code in (0, 7)]
    ended = [asyncio.run(wait_until_ended(r, registry, LIMIT_S)) for r in records]
    assert [r.state for r in ended] == [RunState.SUCCEEDED, RunState.FAILED]
    assert asyncio.run(refresh(registry, records)).records == ended


def test_a_backend_that_cannot_be_asked_changes_nothing(
    sent: RunRecord, registry: Registry
) -> None:
    unknown = replace(sent, backend="elsewhere")
    refreshed = asyncio.run(refresh(registry, [unknown]))
    assert refreshed.records == [unknown]
    assert "elsewhere" in refreshed.notes[0]


def test_many_runs_of_a_service_share_a_backend_and_are_asked_about_a_few_at_a_time(
    sent: RunRecord, registry: Registry, monkeypatch: pytest.MonkeyPatch
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


def test_waiting_ends_with_the_time(make_plan: PlanMaker, registry: Registry) -> None:
    record = start(make_plan(SLEEPER), registry)
    after = asyncio.run(wait_until_ended(record, registry, 0.2))
    assert after.state is RunState.RUNNING
