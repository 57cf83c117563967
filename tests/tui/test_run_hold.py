"""A run that is put on hold from its screen, and goes on from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.clouds.lepton import FakeLepton
from tests.system.clouds.lepton_place import LeptonPlace, workspace_on_loopback
from tests.tui.conftest import Launcher, said, shown, until
from tunedeck.core.launch import launch
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.ask import Confirm
from tunedeck.tui.screens.run import RunScreen


@pytest.fixture
def lepton(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLepton]:
    with workspace_on_loopback(tmp_path, monkeypatch) as service:
        yield service


@pytest.mark.slow
async def test_put_on_hold_and_resumed_it_is_the_same_job(lepton: FakeLepton) -> None:
    place = LeptonPlace(lepton)
    plan = place.plan(
        "cd $TUNEDECK_RUN_DIR; if [ -e saved ]; then echo second try; else"
        " echo first try; touch saved; sleep 600; fi"
    )
    backend = place.backend(plan)
    record = await launch(plan, backend.render(plan), backend, Registry())
    app = WizardApp()
    async with app.run_test(size=(100, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await until(pilot, lambda: "first try" in shown(pilot))
        await pilot.press("z")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: "suspended; it goes on with" in shown(pilot))
        assert Registry().get(plan.run_id).state is RunState.PREEMPTED
        await pilot.press("r")
        await until(pilot, lambda: "second try" in shown(pilot))
        await until(pilot, lambda: "✓ succeeded" in shown(pilot))
    assert Registry().get(plan.run_id).job_id == record.job_id
    assert len(lepton.jobs) == 1


async def test_what_cannot_be_put_on_hold_is_said_so(launched: Launcher) -> None:
    record = launched("import time; print('here', flush=True); time.sleep(60)")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await pilot.press("z")
        await until(pilot, lambda: "cannot be put on hold" in said(pilot))
        assert isinstance(app.screen, RunScreen)
