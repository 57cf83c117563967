from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from textual.widgets import Input, OptionList

from tests.conftest import Command
from tests.tui.conftest import said, shown, until
from tunedeck.core.drafts import Draft, Stage, list_drafts
from tunedeck.core.errors import ExitCode
from tunedeck.core.process import processes_of, signal_all
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import Selection
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.home import HomeScreen
from tunedeck.tui.screens.launch import LaunchScreen
from tunedeck.tui.screens.run import RunScreen
from tunedeck.tui.stages.config import ConfigStage
from tunedeck.tui.stages.review import ReviewStage


def _tiny() -> Selection:
    return Selection("peft/automodel", config="tiny")


async def _open(app: WizardApp, draft: Draft) -> LaunchScreen:
    screen = LaunchScreen(draft)
    await app.push_screen(screen)
    return screen


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_from_an_empty_home_a_demo_trains_after_two_keys() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "▶ Demo" in shown(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "✓ Ready" in shown(pilot), 60)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), 60)
        await until(pilot, lambda: "loss=" in shown(pilot), 120)
    (record,) = Registry().list()
    assert list_drafts() == []
    signal_all(processes_of(record.run_id, None), 9)


async def test_the_walk_by_keys_ends_in_a_review_of_what_was_chosen() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "New launch" in shown(pilot))
        await pilot.press("n")
        await until(pilot, lambda: "peft/automodel" in shown(pilot))
        await pilot.press("slash", *"lora", "down", "enter")
        steps = app.screen.query_one("#steps", OptionList)
        steps.highlighted = steps.get_option_index("peft/automodel")
        await pilot.press("enter")
        await until(pilot, lambda: "most used" in shown(pilot))
        await pilot.press("c", *"tiny", "enter")
        await until(pilot, lambda: "config tiny" in shown(pilot))
        stage = app.screen.query_one(ConfigStage)
        await until(pilot, lambda: stage.form is not None and not stage.form.findings)
        await pilot.press("colon", *"optimizer.lr=1e-4", "enter")
        await until(pilot, lambda: "1 changed" in shown(pilot))
        await pilot.press("n")
        await until(pilot, lambda: "built in" in shown(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "✓ Ready" in shown(pilot))
        assert "optimizer.lr=1e-4" in shown(pilot)


async def test_the_command_that_is_shown_makes_the_same_plan(tunedeck: Command) -> None:
    app = WizardApp()
    chosen = Selection("peft/automodel", config="tiny", overrides=("optimizer.lr=2e-4",))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open(app, Draft.begin(chosen, "review"))
        await until(pilot, lambda: "✓ Ready" in shown(pilot))
        prepared = screen.query_one(ReviewStage).prepared
        assert prepared is not None
        done = tunedeck(*shlex.split(screen.command_line)[1:], "--json")
    assert json.loads(done.stdout)["plan"]["digest"] == prepared.plan.digest


async def test_a_wrong_value_stands_below_its_field_and_blocks_the_review() -> None:
    app = WizardApp()
    chosen = Selection("peft/automodel", config="tiny", overrides=("peft.dim=-3",))
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open(app, Draft.begin(chosen, "review"))
        await until(pilot, lambda: "cannot be launched" in shown(pilot))
        await pilot.press("s")
        assert isinstance(app.screen, LaunchScreen)
        screen.query_one("#findings").focus()
        await pilot.press("down", "enter")
        await until(pilot, lambda: "✗ peft.dim" in shown(pilot))
        fields = screen.query_one("#fields", OptionList)
        await until(
            pilot,
            lambda: (marked := fields.highlighted_option) is not None and marked.id == "peft.dim",
        )
        assert "error" in shown(pilot)
        await pilot.press("backspace")
        await until(pilot, lambda: "0 changed" in shown(pilot))


async def test_a_field_is_edited_in_its_own_dialog_and_refuses_what_is_wrong() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open(app, Draft.begin(_tiny(), "config"))
        stage = screen.query_one(ConfigStage)
        await until(pilot, lambda: stage.form is not None)
        stage.go_to("optimizer.lr")
        await pilot.press("enter")
        typed = app.screen.query_one(Input)
        typed.value = "fast"
        await pilot.press("enter")
        await until(pilot, lambda: "✗" in shown(pilot))
        typed.value = "5e-4"
        await pilot.press("enter")
        await until(pilot, lambda: screen.selection.overrides == ("optimizer.lr=5e-4",))


async def test_nothing_that_was_chosen_is_lost_when_the_wizard_ends() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open(app, Draft.begin(_tiny(), "config"))
        await until(pilot, lambda: screen.catalog is not None)
        await pilot.press("colon", *"rng.seed=7", "enter")
        await until(pilot, lambda: screen.selection.overrides == ("rng.seed=7",))
        await until(pilot, lambda: bool(list_drafts()))
        app.exit()
    (draft,) = list_drafts()
    assert draft.selection.overrides == ("rng.seed=7",)
    assert draft.stage == "config"


async def test_escape_goes_back_stage_by_stage_and_then_home() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open(app, Draft.begin(_tiny(), "environment"))
        await until(pilot, lambda: "built in" in shown(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: screen.draft.stage == "config")
        await pilot.press("escape")
        await until(pilot, lambda: screen.draft.stage == "step")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_read_only_submits_nothing_and_says_why() -> None:
    app = WizardApp(read_only=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await _open(app, Draft.begin(_tiny(), "review"))
        await until(pilot, lambda: "✓ Ready" in shown(pilot))
        await pilot.press("s")
        await until(pilot, lambda: "--read-only" in said(pilot))
    assert Registry().list() == []


async def test_profiles_are_shown_with_their_file_and_what_is_wrong(working_folder: Path) -> None:
    (working_folder / "env.toml").write_text(
        '[cluster]\nexecutor = "slurm"\nhost = "login"\nnoodles = 2\n'
    )
    app = WizardApp()
    async with app.run_test(size=(120, 36)) as pilot:
        await _open(app, Draft.begin(_tiny(), "environment"))
        await until(pilot, lambda: "cluster" in shown(pilot))
        profiles = app.screen.query_one("#profiles", OptionList)
        profiles.highlighted = profiles.get_option_index("cluster")
        await until(pilot, lambda: "noodles" in shown(pilot))
        assert "env.toml:1" in shown(pilot)


async def test_the_data_is_shown_token_by_token() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open(app, Draft.begin(_tiny(), "config"))
        stage = screen.query_one(ConfigStage)
        await until(pilot, lambda: stage.form is not None)
        await pilot.press("l")
        await until(pilot, lambda: "16 trained" in shown(pilot))
        await pilot.press("right")
        await until(pilot, lambda: "2 of 20" in shown(pilot))


async def test_what_was_reviewed_can_be_saved_and_opened_from_home(home: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await _open(app, Draft.begin(_tiny(), "review"))
        await until(pilot, lambda: "✓ Ready" in shown(pilot))
        await pilot.press("w")
        await until(pilot, lambda: bool(app.screen.query("#typed")))
        app.screen.query_one(Input).value = "mine"
        await pilot.press("enter")
        await until(pilot, lambda: "Saved as" in said(pilot))
        app.pop_screen()
        await until(pilot, lambda: "mine" in shown(pilot))
        listed = app.screen.query_one("#everything", OptionList)
        listed.highlighted = listed.get_option_index("replay:mine")
        await pilot.press("enter")
        await until(pilot, lambda: "Nothing has changed" in shown(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "✓ Ready" in shown(pilot))


def test_without_a_terminal_the_wizard_names_the_command(tunedeck: Command) -> None:
    for option in ((), ("--plain",), ("--read-only",)):
        done = tunedeck(*option)
        assert done.returncode == ExitCode.USAGE
        assert "tunedeck steps run --help" in done.stderr


def test_options_of_the_wizard_go_with_no_command(tunedeck: Command) -> None:
    done = tunedeck("--plain", "runs", "list")
    assert done.returncode == ExitCode.USAGE
    assert "--plain" in done.stderr


@pytest.mark.parametrize("stage", ["step", "config", "environment", "review"])
async def test_the_footer_of_every_stage_fits_80_columns(stage: Stage) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open(app, Draft.begin(_tiny(), stage))
        await until(pilot, lambda: screen.catalog is not None)
        await until(pilot, lambda: "? Help" in shown(pilot).splitlines()[-1])
