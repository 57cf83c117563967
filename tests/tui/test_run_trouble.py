"""A run whose place does not answer, or lets no one in: said on its screen until that is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.core.conftest import PlanMaker
from tests.tui.conftest import shown, until
from tunedeck.core.backends.base import Capabilities, Handle, LogLine
from tunedeck.core.backends.local.backend import LocalBackend
from tunedeck.core.errors import AuthenticationError, NotFoundError, TunedeckError
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState, Status
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens import run_feed
from tunedeck.tui.screens.run import RunScreen

RUNNING = Status(RunState.RUNNING, "Running")
DONE = Status(RunState.SUCCEEDED, "Completed", "", 0)


class Service:
    """What the backend says: a status or an error, and a log of two lines."""

    def __init__(self) -> None:
        self.says: Status | TunedeckError = RUNNING
        self.log_says: TunedeckError | None = None

    async def status(self, _handle: Handle) -> Status:
        if isinstance(self.says, TunedeckError):
            raise self.says
        return self.says

    async def logs(
        self, _handle: Handle, cursor: str | None, *, follow: bool
    ) -> AsyncIterator[LogLine]:
        if self.log_says is not None:
            raise self.log_says
        for number in range(int(cursor or 0), 2):
            yield LogLine(f"line {number}".encode(), str(number + 1))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    made = Service()
    elsewhere = Capabilities(remote=True, poll_s=0.1)

    def through(method: str) -> Callable[..., Any]:
        return lambda _self, *args, **options: getattr(made, method)(*args, **options)

    monkeypatch.setattr(LocalBackend, "capabilities", elsewhere)
    monkeypatch.setattr(LocalBackend, "status", through("status"))
    monkeypatch.setattr(LocalBackend, "logs", through("logs"))
    monkeypatch.setattr(run_feed, "_FIRST_PAUSE_S", 0.2)
    return made


@pytest.fixture
def record(make_plan: PlanMaker, registry: Registry) -> RunRecord:
    made = replace(RunRecord.of(make_plan("pass"), forced=False), job_id="job-1", handle={})
    registry.add(made)
    return made


async def test_a_token_that_has_run_out_is_said_until_it_is_good_again(
    service: Service, record: RunRecord
) -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(RunScreen(record))
        await until(pilot, lambda: "● running" in shown(pilot))
        service.says = AuthenticationError("The token has expired.", fix="Make a new one.")
        await until(pilot, lambda: "Not up to date: The token has expired." in shown(pilot))
        assert "Make a new one." in shown(pilot)
        service.says = DONE
        await until(pilot, lambda: "✓ succeeded" in shown(pilot))
        await until(pilot, lambda: "Not up to date" not in shown(pilot))
        await until(pilot, lambda: "line 1" in shown(pilot))


async def test_the_rest_of_a_log_comes_when_a_run_that_ended_meanwhile_is_opened(
    service: Service, record: RunRecord, registry: Registry
) -> None:
    service.says = DONE
    ended = registry.update(record.run_id, DONE)
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(RunScreen(ended))
        await until(pilot, lambda: "line 1" in shown(pilot))
    assert record.log.read_bytes() == b"line 0\nline 1\n"


async def test_a_service_that_has_forgotten_a_run_is_asked_once(
    service: Service, record: RunRecord, registry: Registry
) -> None:
    service.log_says = NotFoundError("There is no job job-1.")
    ended = registry.update(record.run_id, DONE)
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(RunScreen(ended))
        await until(pilot, lambda: "Not all of its log is here: There is no job" in shown(pilot))
        assert "Looking again" not in shown(pilot)
