from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from textual.widgets import Input

from tests.tui.conftest import said, shown, until
from tunedeck.core.drafts import Draft
from tunedeck.core.errors import AuthenticationError
from tunedeck.core.selection import Selection
from tunedeck.core.ssh.prompts import prompter
from tunedeck.tui.app import WizardApp
from tunedeck.tui.background import Failed
from tunedeck.tui.screens.ask import AskLogin
from tunedeck.tui.screens.home import HomeScreen
from tunedeck.tui.screens.launch import LaunchScreen, NotSent
from tunedeck.tui.stages.config import ConfigStage

_QUESTION = "[bold]Password[/x]\x1b]0;a\x07 for ada: "


async def _open_config(app: WizardApp, cwd: Path) -> LaunchScreen:
    screen = LaunchScreen(
        Draft.begin(Selection("peft/automodel", config="tiny", cwd=cwd), "config")
    )
    await app.push_screen(screen)
    return screen


def _home(app: WizardApp) -> HomeScreen:
    assert isinstance(app.screen, HomeScreen)
    return app.screen


async def test_what_a_login_asks_is_asked_over_the_screen_and_is_no_markup() -> None:
    app = WizardApp()
    answers: list[str] = []

    async def logs_in() -> str:
        assert prompter().present
        return await asyncio.to_thread(
            prompter().secret, "[bold]Password[/x]\x1b]0;a\x07 for ada: "
        )

    def told(answer: str) -> NotSent:
        answers.append(answer)
        return NotSent()

    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "New launch" in shown(pilot))
        _home(app).begin_errand("Asking the cluster", logs_in, told)
        await until(pilot, lambda: isinstance(app.screen, AskLogin))
        await until(pilot, lambda: "[bold]Password[/x] for ada" in shown(pilot))
        assert app.screen.query_one(Input).password
        await pilot.press(*"secret", "enter")
        await until(pilot, lambda: answers == ["secret"])
        assert "secret" not in shown(pilot)


async def test_a_question_that_is_left_ends_the_login_and_not_the_wizard() -> None:
    app = WizardApp()

    async def logs_in() -> str:
        return await asyncio.to_thread(prompter().text, "Trust it? ")

    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "New launch" in shown(pilot))
        _home(app).begin_errand("Asking the cluster", logs_in, lambda _answer: NotSent())
        await until(pilot, lambda: isinstance(app.screen, AskLogin))
        await pilot.press("escape")
        await until(pilot, lambda: "left unanswered" in said(pilot))


async def test_nothing_that_goes_on_by_itself_asks() -> None:
    present: list[bool] = []
    async with WizardApp().run_test(size=(80, 24)):
        thread = threading.Thread(target=lambda: present.append(prompter().present))
        thread.start()
        thread.join()
    assert present == [False]


async def test_an_errand_that_ends_after_it_was_given_up_says_nothing() -> None:
    app = WizardApp()
    go = threading.Event()
    told: list[str] = []

    async def cannot_be_stopped() -> None:
        go.wait(20)  # a call that no cancellation reaches

    def tell(_result: None) -> Failed:
        told.append("told")
        return Failed(AuthenticationError("too late"))

    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "New launch" in shown(pilot))
        home = _home(app)
        errand = home.begin_errand("Waiting", cannot_be_stopped, tell)
        await until(pilot, lambda: "◌ Waiting" in shown(pilot))
        assert home.give_up()
        await until(pilot, lambda: "◌ Waiting" not in shown(pilot))
        go.set()
        await pilot.pause(0.3)
        assert errand.done
        assert "too late" not in said(pilot)


async def test_jump_keys_label_every_place_and_go_there() -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open_config(app, Path.cwd())
        await until(pilot, lambda: "most used" in shown(pilot))
        await pilot.press("ctrl+o")
        await until(pilot, lambda: " a " in shown(pilot) and " c " in shown(pilot))
        await pilot.press("c")
        await until(pilot, lambda: screen.focused is not None and screen.focused.id == "dotlist")


async def test_a_data_set_is_found_folder_by_folder(working_folder: Path) -> None:
    (working_folder / "data").mkdir()
    (working_folder / "data" / "chats.jsonl").write_text("{}\n")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open_config(app, working_folder)
        stage = screen.query_one(ConfigStage)
        await until(pilot, lambda: stage.form is not None)
        stage.go_to("dataset.path_or_dataset_id")
        await pilot.press("enter")
        # What ships with the package is no place to look for one's own.
        await until(pilot, lambda: "▸ data" in shown(pilot))
        await pilot.press(*"./data/chats.jsonl", "ctrl+t")
        expected = ("dataset.path_or_dataset_id=./data/chats.jsonl",)
        await until(pilot, lambda: screen.selection.overrides == expected)
        await until(pilot, lambda: "1 changed" in shown(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: "rows, 3 B" in shown(pilot))
        await pilot.press("left")
        await until(pilot, lambda: "▸ data" in shown(pilot))
        await pilot.press(*"dat", "enter")
        await until(pilot, lambda: "chats.jsonl" in shown(pilot))
        await pilot.press("enter")
        await until(pilot, lambda: screen.selection.overrides == expected)


async def test_models_of_this_machine_are_offered_beside_those_the_step_knows(
    working_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (working_folder / "merged").mkdir()
    (working_folder / "merged" / "config.json").write_text("{}")
    cached = tmp_path / "hub" / "models--ada--small"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open_config(app, working_folder)
        stage = screen.query_one(ConfigStage)
        await until(pilot, lambda: stage.form is not None)
        stage.go_to("model.pretrained_model_name_or_path")
        await pilot.press("enter")
        await until(pilot, lambda: "./merged" in shown(pilot))
        assert "ada/small" in shown(pilot)
        assert "browse …" in shown(pilot)
        await pilot.press(*"ada/s", "enter")
        expected = ("model.pretrained_model_name_or_path=ada/small",)
        await until(pilot, lambda: screen.selection.overrides == expected)


async def test_a_hub_id_is_taken_as_it_is_typed(working_folder: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _open_config(app, working_folder)
        stage = screen.query_one(ConfigStage)
        await until(pilot, lambda: stage.form is not None)
        stage.go_to("model.pretrained_model_name_or_path")
        await pilot.press("enter", *"my-org/my-model", "enter")
        expected = ("model.pretrained_model_name_or_path=my-org/my-model",)
        await until(pilot, lambda: screen.selection.overrides == expected)


async def test_the_configs_are_offered_with_what_they_are_for(working_folder: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await _open_config(app, working_folder)
        # Of a path that is too long the end is seen, which tells one from the other.
        await until(pilot, lambda: "word_problems/train.jsonl" in shown(pilot))
        await pilot.press("c")
        await until(pilot, lambda: "the default: LoRA on an 8B model" in shown(pilot))
        assert "A minute on two CPU cores" in shown(pilot)


async def test_data_without_a_row_says_that_and_nothing_else(working_folder: Path) -> None:
    (working_folder / "none.jsonl").touch()
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await _open_config(app, working_folder)
        await until(pilot, lambda: "most used" in shown(pilot))
        await pilot.press("colon", *"dataset.path_or_dataset_id=none.jsonl", "enter")
        await until(pilot, lambda: "1 changed" in shown(pilot))
        await pilot.press("l")
        await until(pilot, lambda: "The data set is empty" in shown(pilot))
        assert "tokenizer" not in shown(pilot)
        assert "0 of 0" not in shown(pilot)


async def test_the_config_as_yaml_marks_what_is_changed(working_folder: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await _open_config(app, working_folder)
        await until(pilot, lambda: "most used" in shown(pilot))
        await pilot.press("colon", *"optimizer.lr=0.5", "enter")
        await until(pilot, lambda: "1 changed" in shown(pilot))
        await pilot.press("y")
        await until(pilot, lambda: "seed:" in shown(pilot) or "model:" in shown(pilot))
        await pilot.press("m")
        await until(pilot, lambda: "+   lr: 0.5" in shown(pilot))
        assert "-   lr:" in shown(pilot)
        assert "model:" not in shown(pilot)
