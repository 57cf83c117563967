from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual import events
from textual.geometry import Offset
from textual.pilot import Pilot
from textual.screen import ModalScreen
from textual.widgets import OptionList

from tests.tui.conftest import Launcher, said, shown, until
from tests.tui.scenes import SCENES, prepare_folder, recorded
from tunedeck.core.drafts import Draft, Stage
from tunedeck.core.selection import Selection
from tunedeck.core.states import RunState
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.ask import AskText, Choose, Confirm
from tunedeck.tui.screens.data import DataScreen
from tunedeck.tui.screens.help import HelpScreen
from tunedeck.tui.screens.home import HomeScreen
from tunedeck.tui.screens.launch import LaunchScreen
from tunedeck.tui.screens.profile import ProfileScreen
from tunedeck.tui.screens.run import RunScreen
from tunedeck.tui.screens.yaml import YamlScreen
from tunedeck.tui.stages.config import ConfigStage
from tunedeck.tui.widgets.chart import Chart
from tunedeck.tui.widgets.log_view import LogView


async def _click(pilot: Pilot[None], text: str) -> None:
    """Click on the first place of the screen where a text stands."""
    await until(pilot, lambda: text in shown(pilot))
    for y, row in enumerate(shown(pilot).splitlines()):
        if text in row:
            await pilot.click(offset=(row.index(text) + len(text) // 2, y))
            return


def _shows(pilot: Pilot[None], text: str) -> Callable[[], bool]:
    return lambda: text in shown(pilot)


def _is_at(screen: LaunchScreen, stage: str) -> Callable[[], bool]:
    return lambda: screen.draft.stage == stage


def _is_over(app: WizardApp, question: type[ModalScreen[Any]]) -> Callable[[], bool]:
    return lambda: isinstance(app.screen, question)


async def _open(pilot: Pilot[None], stage: Stage, folder: Path | None = None) -> LaunchScreen:
    chosen = Selection("peft/automodel", config="tiny", cwd=folder or Path.cwd())
    screen = LaunchScreen(Draft.begin(chosen, stage))
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: screen.ready)
    return screen


async def test_the_demo_is_reached_and_left_by_clicks() -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "tiny-lora" in shown(pilot) and "Nothing has" in shown(pilot))
        await _click(pilot, "▶ Demo launch")
        await until(pilot, lambda: "✓ Ready" in shown(pilot), 60)
        await _click(pilot, "Save")
        await until(pilot, lambda: isinstance(pilot.app.screen, AskText))


async def test_every_line_of_home_opens_by_a_click(working_folder: Path) -> None:
    prepare_folder(working_folder)
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await SCENES["home"](pilot, working_folder)
        for text, what in (
            ("larger rank", "cause:"),
            ("✎ config", "most used"),
            ("tuesday", "Nothing has changed"),
            ("+ New launch", "LoRA fine-tuning"),
        ):
            await _click(pilot, text)
            await until(pilot, _shows(pilot, what))
            pilot.app.pop_screen()
            await until(pilot, lambda: "Saved launches" in shown(pilot))


async def test_the_stepper_is_clicked() -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        screen = await _open(pilot, "review")
        for text, stage in (("Config", "config"), ("Environment", "environment"), ("Step", "step")):
            await _click(pilot, text)
            await until(pilot, _is_at(screen, stage))
            await until(pilot, lambda: screen.ready)


async def test_a_step_a_field_and_a_profile_are_chosen_by_clicks() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open(pilot, "step")
        await _click(pilot, "sft/automodel")
        await until(pilot, lambda: screen.selection.step == "sft/automodel")
        await until(pilot, lambda: screen.ready)
        await _click(pilot, "optimizer.lr")
        await until(pilot, lambda: isinstance(app.screen, AskText))
        await pilot.press("escape")
        await _click(pilot, "YAML")
        await until(pilot, lambda: isinstance(app.screen, YamlScreen))
        await _click(pilot, "Back")
        await until(pilot, lambda: app.screen is screen)
        await _click(pilot, ": key=value")
        assert app.focused is screen.query_one("#dotlist")
        await _click(pilot, "/ search fields")
        assert app.focused is screen.query_one("#field-search")
        await _click(pilot, "Environment")
        await _click(pilot, "✓ local")
        await until(pilot, lambda: screen.draft.stage == "review")


async def test_data_and_a_finding_are_reached_by_clicks(working_folder: Path) -> None:
    (working_folder / "env.toml").write_text('[lab]\nexecutor = "slurm"\nhost = "h"\ntime = "2h"\n')
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open(pilot, "config", working_folder)
        await until(pilot, lambda: screen.query_one(ConfigStage).form is not None)
        await _click(pilot, "Data")
        await until(pilot, lambda: isinstance(app.screen, DataScreen))
        await until(pilot, lambda: "1 of 20" in shown(pilot))
        await _click(pilot, "Next row")
        await until(pilot, lambda: "2 of 20" in shown(pilot))
        await _click(pilot, "Back")
        await until(pilot, lambda: app.screen is screen)
        await _click(pilot, "Environment")
        await until(pilot, lambda: screen.draft.stage == "environment" and screen.ready)
        profiles = screen.query_one("#profiles", OptionList)
        profiles.highlighted = profiles.get_option_index("lab")
        await _click(pilot, "is no time limit")
        await until(pilot, lambda: isinstance(app.screen, ProfileScreen))


async def test_the_log_is_scrolled_by_the_wheel_and_marked_by_a_click(
    launched: Launcher,
) -> None:
    record = launched("for n in range(500): print('line', n, flush=True)")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await until(pilot, lambda: "line 499" in shown(pilot))
        log = app.screen.query_one(LogView)
        for _ in range(5):
            await pilot._post_mouse_events([events.MouseScrollUp], LogView, offset=(5, 3))
        await until(pilot, lambda: "line 499" not in shown(pilot))
        assert not log.following
        top = log.top
        await pilot.click(LogView, offset=(5, 2))
        await until(pilot, lambda: log._marked == top + 2)
        for _ in range(9):
            await pilot._post_mouse_events([events.MouseScrollDown], LogView, offset=(5, 3))
        await until(pilot, lambda: log.following and "line 499" in shown(pilot))


async def test_the_chart_and_the_footer_of_a_run_are_clicked(working_folder: Path) -> None:
    prepare_folder(working_folder)
    record = recorded(working_folder, "first try", RunState.SUCCEEDED)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await until(pilot, lambda: "step 60/60" in shown(pilot))
        await pilot.click(Chart)
        await until(pilot, lambda: isinstance(app.screen, Choose))
        await _click(pilot, "learning rate")
        await until(pilot, lambda: "learning rate" in shown(pilot).split("Value")[0])
        await _click(pilot, "Facts")
        await until(pilot, lambda: "digest" in shown(pilot))
        await _click(pilot, "Back")
        await until(pilot, lambda: "digest" not in shown(pilot))
        await _click(pilot, "Back")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_a_question_is_answered_by_its_buttons(launched: Launcher) -> None:
    record = launched("import time; print('here', flush=True); time.sleep(60)")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await _click(pilot, "Cancel")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.click("#no")
        await until(pilot, lambda: isinstance(app.screen, RunScreen))
        await _click(pilot, "Cancel")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.click("#yes")
        await until(pilot, lambda: "✗ cancelled" in shown(pilot))


async def test_a_click_beside_a_question_leaves_it_and_loses_nothing_that_is_typed(
    launched: Launcher,
) -> None:
    record = launched("print('here', flush=True); import time; time.sleep(60)")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        run = RunScreen(record)
        await app.push_screen(run)
        await until(pilot, lambda: "here" in shown(pilot))
        questions: dict[str, type[ModalScreen[Any]]]
        questions = {"x": Confirm, "t": Choose, "slash": AskText}
        for key, question in questions.items():
            await pilot.press(key)
            await until(pilot, _is_over(app, question))
            frame = app.screen.query_one("#dialog").region
            await pilot.click(offset=frame.offset)
            assert isinstance(app.screen, question)
            await pilot.click(offset=Offset(1, 1))
            await until(pilot, lambda: app.screen is run)
        assert not run.record.state.terminal
        await pilot.press("slash", *"loss")
        await pilot.click(offset=Offset(1, 1))
        assert isinstance(app.screen, AskText)
        assert "loss" in shown(pilot)
        await pilot.press("escape", "x", "y")
        await until(pilot, lambda: "✗ cancelled" in shown(pilot))


async def test_the_command_is_copied_and_help_closed_by_a_click() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "tiny-lora" in shown(pilot) and "Nothing has" in shown(pilot))
        await _click(pilot, "$ tunedeck")
        await until(pilot, lambda: "Copied: tunedeck" in said(pilot))
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.click(offset=Offset(1, 1))
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_every_action_is_reached_from_the_palette_by_clicks() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await _click(pilot, "palette")
        await _click(pilot, "Begin a launch")
        await until(pilot, lambda: isinstance(app.screen, LaunchScreen))
