"""What the tests of the wizard share: runs of small scripts, and waiting for what threads tell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual._context import visible_screen_stack
from textual.pilot import Pilot

from tests.core.conftest import PlanMaker, make_plan, registry
from tunedeck.core.backends.base import load_backend
from tunedeck.core.launch import launch
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry

__all__ = ["make_plan", "registry"]

Launcher = Callable[..., RunRecord]


async def until(pilot: Pilot[None], condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something holds on the screen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, shown(pilot)
        await pilot.pause(0.02)


def shown(pilot: Pilot[None]) -> str:
    """The characters on the screen, with those of the screens that are seen through it."""
    visible_screen_stack.set(pilot.app._background_screens)
    rows = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in row) for row in rows)


def said(pilot: Pilot[None]) -> str:
    """The notes that were shown, which are no part of a screen."""
    return " ".join(note.message for note in pilot.app._notifications)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without env files or replays of its own."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def launched(make_plan: PlanMaker, registry: Registry) -> Launcher:
    """Launch a small script as a run of the local backend."""

    def start(script: str, **changes: object) -> RunRecord:
        plan = make_plan(script, **changes)
        backend = load_backend("local", dict(plan.profile_values))

        def run() -> RunRecord:
            return asyncio.run(launch(plan, backend.render(plan), backend, registry))

        # The test itself runs in a loop already.
        import concurrent.futures

        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return pool.submit(run).result()

    return start
