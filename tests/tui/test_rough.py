"""What goes wrong around the wizard: disks, other wizards, files that change or go."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from tests.tui.conftest import Launcher, said, shown, until
from tests.tui.scenes import prepare_folder, recorded
from tunedeck.core import locations
from tunedeck.core.drafts import Draft, list_drafts, save_draft
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import Selection
from tunedeck.core.states import RunState
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.home import HomeScreen
from tunedeck.tui.screens.launch import LaunchScreen
from tunedeck.tui.screens.run import RunScreen

_TINY = Selection("peft/automodel", config="tiny")


def _shows(pilot: Pilot[None], words: str) -> Callable[[], bool]:
    return lambda: words in shown(pilot)


@pytest.mark.parametrize(("stage", "line"), [("config", "#dotlist"), ("step", "#step-search")])
async def test_a_megabyte_that_is_pasted_is_survived(stage: str, line: str) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(Draft.begin(_TINY, "config" if stage == "config" else "step"))
        await app.push_screen(screen)
        await until(pilot, lambda: screen.ready)
        typed = screen.query_one(line, Input)
        typed.focus()
        app.post_message(events.Paste("x" * 1_000_000))
        await until(pilot, lambda: bool(typed.value) or "too long" in said(pilot), 60)
        began = time.process_time()
        await pilot.press("end", "y", "home")
        await pilot.pause()
        assert time.process_time() - began < 2
        await pilot.press("escape")
        assert app.is_running


async def test_a_run_that_another_wizard_deleted_is_told(working_folder: Path) -> None:
    prepare_folder(working_folder)
    one = recorded(working_folder, "first try", RunState.SUCCEEDED)
    two = recorded(working_folder, "second try", RunState.SUCCEEDED)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "first try" in shown(pilot) and "second try" in shown(pilot))
        home = app.screen
        assert isinstance(home, HomeScreen)
        home._look_away()  # it has not looked again yet
        listed = home.query_one(OptionList)
        for record in (one, two):
            listed.highlighted = listed.get_option_index(f"run:{record.run_id}")
            await pilot.press("space")
        Registry().delete(one.run_id)
        await pilot.press("c")
        await until(pilot, lambda: one.run_id in said(pilot))
        app.clear_notifications()
        listed.highlighted = listed.get_option_index(f"run:{one.run_id}")
        await pilot.press("enter")
        await until(pilot, lambda: one.run_id in said(pilot))
        assert app.screen is home


async def test_two_wizards_keep_their_own_drafts() -> None:
    first, second = WizardApp(), WizardApp()
    async with first.run_test(size=(80, 24)) as one:
        mine = LaunchScreen(Draft.begin(_TINY, "config"))
        await first.push_screen(mine)
        await until(one, lambda: mine.ready)
        async with second.run_test(size=(80, 24)) as other:
            theirs = LaunchScreen(Draft.begin(_TINY, "config"))
            await second.push_screen(theirs)
            await until(other, lambda: theirs.ready)
            await other.press("colon", *"rng.seed=2", "enter")
            await until(other, lambda: "rng.seed=2" in theirs.selection.overrides)
        await one.press("colon", *"rng.seed=1", "enter")
        await until(one, lambda: "rng.seed=1" in mine.selection.overrides)
    found = {draft.selection.overrides for draft in list_drafts()}
    assert found == {("rng.seed=1",), ("rng.seed=2",)}


@pytest.mark.parametrize("name", ["state", "config"])
async def test_where_nothing_can_be_kept_one_can_still_look(home: Path, name: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / name).write_text("a file where the folder would be")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "New launch" in shown(pilot))
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, LaunchScreen) and app.screen.ready)
        await pilot.press("enter")
        await until(pilot, lambda: "most used" in shown(pilot))
        if name == "state":
            await until(pilot, lambda: str(home) in said(pilot))
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        await pilot.press("ctrl+q")


async def test_broken_drafts_replays_and_spools_are_passed_over_or_told(
    working_folder: Path,
) -> None:
    prepare_folder(working_folder)
    save_draft(Draft.begin(_TINY, "config"))
    for text in ("{", "[]", '{"step": 3}', "\x00" * 99):
        (locations.drafts_dir() / f"d{len(text)}.json").write_text(text)
    locations.replays_dir().mkdir(parents=True)
    (locations.replays_dir() / "broken.replay.toml").write_text("[[[")
    record = recorded(working_folder, "first try", RunState.SUCCEEDED)
    record.log.write_bytes(bytes(range(256)) * 999)
    record.log.with_suffix(".json").write_text("{nothing")
    (record.run_dir / "result.json").write_text("[1,")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "broken" in shown(pilot) and "✎ config" in shown(pilot))
        listed = app.screen.query_one(OptionList)
        listed.highlighted = listed.get_option_index("replay:broken")
        await pilot.press("enter")
        await until(pilot, lambda: "broken.replay.toml" in said(pilot))
        await app.push_screen(RunScreen(record))
        await until(pilot, lambda: "succeeded" in shown(pilot))
        await pilot.press("d")
        await until(pilot, lambda: "digest" in shown(pilot))
        assert not any(sign in shown(pilot) for sign in ("\x1b", "\x07", "\x00"))


async def test_a_run_whose_folder_goes_while_it_is_shown(launched: Launcher) -> None:
    record = launched(
        "import time\nfor n in range(200): print('line', n, flush=True); time.sleep(0.05)"
    )
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await until(pilot, lambda: "line 3" in shown(pilot))
        shutil.rmtree(record.run_dir)
        await pilot.pause(1)
        await pilot.press("d", "v", "e", "slash", *"line", "enter", "r", "a")
        await pilot.pause(0.5)
        assert app.is_running


async def test_what_cannot_be_kept_is_told_once_and_the_walk_goes_on() -> None:
    folder = locations.drafts_dir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("a file where the drafts should be")
    chosen = Selection("peft/automodel", config="tiny")
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(Draft.begin(chosen, "config"))
        await pilot.app.push_screen(screen)
        await until(pilot, lambda: screen.ready)
        for seed in ("1", "2"):
            await pilot.press("colon", *f"rng.seed={seed}", "enter")
            await until(pilot, _shows(pilot, f"--dry-run rng.seed={seed}"))
            await until(pilot, lambda: "is not kept" in said(pilot))
        await pilot.press("n")
        await until(pilot, lambda: "env files" in shown(pilot))
        assert said(pilot).count("is not kept") == 1


async def test_the_line_takes_quotes_as_a_shell_does() -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(Draft.begin(Selection("peft/automodel", config="tiny"), "config"))
        await pilot.app.push_screen(screen)
        await until(pilot, lambda: screen.ready)
        await pilot.press("colon", *"sampling.prompts='[", "enter")
        await until(pilot, lambda: "No closing quotation" in said(pilot))
        await pilot.press(*'"a b"]\' rng.seed=2', "enter")
        wanted = ('sampling.prompts=["a b"]', "rng.seed=2")
        await until(pilot, lambda: screen.selection.overrides == wanted)
