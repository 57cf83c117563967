from __future__ import annotations

import threading
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input

from tests.tui.conftest import shown, until
from tunedeck.core import catalog
from tunedeck.core.catalog import Catalog, load_catalog
from tunedeck.core.drafts import Draft
from tunedeck.core.selection import Selection
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.help import HelpScreen
from tunedeck.tui.screens.home import HomeScreen
from tunedeck.tui.screens.launch import LaunchScreen


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The catalog is not read before this is set."""
    event = threading.Event()

    def slowly(*given: Any) -> Catalog:
        event.wait(30)
        return load_catalog(*given)

    monkeypatch.setattr(catalog, "load_catalog", slowly)
    return event


def _type_at_once(pilot: Pilot[None], *keys: str) -> None:
    """All keys as a terminal hands them over that had them before it was read."""
    for key in keys:
        pilot.app.post_message(events.Key(key, key if len(key) == 1 else None))


async def test_keys_typed_before_the_first_picture_are_taken_one_by_one() -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        _type_at_once(pilot, "n", "enter", "c", *"tiny", "enter", "n", "enter")
        await until(pilot, lambda: "✓ Ready" in shown(pilot), 60)
        assert "config   tiny" in shown(pilot)


async def test_what_the_shell_makes_of_enter_is_enter() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        _type_at_once(pilot, "ctrl+j")
        await until(pilot, lambda: "✓ Ready" in shown(pilot), 60)  # the demo's review


async def test_escape_waits_for_nothing_and_drops_what_was_held(
    read: threading.Event,
) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "New launch" in shown(pilot))
        screen = LaunchScreen(Draft.begin(Selection("peft/automodel", config="tiny"), "step"))
        await app.push_screen(screen)
        _type_at_once(pilot, "enter", "enter", "escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        read.set()
        await pilot.pause(0.1)
        assert isinstance(app.screen, HomeScreen)


async def test_help_about_what_is_waited_for_comes_at_once_and_escape_leaves_it_alone(
    read: threading.Event,
) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(Draft.begin(Selection("peft/automodel", config="tiny"), "review"))
        await app.push_screen(screen)
        _type_at_once(pilot, "question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        _type_at_once(pilot, "escape")
        await until(pilot, lambda: app.screen is screen)
        read.set()
        await until(pilot, lambda: "✓ Ready" in shown(pilot), 60)


async def test_a_text_typed_in_one_go_arrives_in_order() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(Draft.begin(Selection("peft/automodel", config="tiny"), "config"))
        await app.push_screen(screen)
        text = "optimizer.lr=1e-4 rng.seed=7"
        _type_at_once(pilot, "colon", *text)
        line = screen.query_one("#dotlist", Input)
        await until(pilot, lambda: line.value == text)
        _type_at_once(pilot, "enter")
        await until(pilot, lambda: screen.selection.overrides == tuple(text.split()))
