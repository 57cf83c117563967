"""Every screen shows the command that does the same: each is run, and plans are compared."""

from __future__ import annotations

import importlib
import json
import pkgutil
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import OptionList

import tunedeck.tui.screens
from tests.conftest import Command
from tests.tui.conftest import Launcher, shown, until
from tunedeck.core.catalog import load_catalog
from tunedeck.core.choices import form_of
from tunedeck.core.drafts import Draft, Stage
from tunedeck.core.replays.replay import save_replay
from tunedeck.core.resolve import resolve
from tunedeck.core.selection import Selection
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.compare import CompareScreen
from tunedeck.tui.screens.data import DataScreen
from tunedeck.tui.screens.env_file import EnvFileScreen
from tunedeck.tui.screens.launch import LaunchScreen
from tunedeck.tui.screens.page import Page
from tunedeck.tui.screens.profile import ProfileScreen
from tunedeck.tui.screens.replay import ReplayScreen
from tunedeck.tui.screens.run import RunScreen
from tunedeck.tui.screens.yaml import YamlScreen

_SCRIPT = "for s in range(1, 9): print(f'step={s} loss={5 - s / 10}', flush=True)"


def _selection(cwd: Path) -> Selection:
    return Selection("peft/automodel", config="tiny", overrides=("optimizer.lr=2e-4",), cwd=cwd)


@pytest.fixture
def folder(tmp_path: Path, working_folder: Path) -> Path:
    """Where the commands are run, and so where the wizard is: with an env file of its own."""
    folder = tmp_path / "work"
    folder.mkdir(exist_ok=True)
    (folder / "env.toml").write_text('[mine]\nexecutor = "local"\nnproc_per_node = 1\n')
    return folder


def test_each_screen_has_its_case() -> None:
    for module in pkgutil.iter_modules(tunedeck.tui.screens.__path__):
        importlib.import_module(f"tunedeck.tui.screens.{module.name}")
    there_are = {screen.__name__ for screen in Page.__subclasses__()}
    assert there_are == {
        "CompareScreen",
        "DataScreen",
        "EnvFileScreen",
        "HomeScreen",
        "LaunchScreen",
        "ProfileScreen",
        "ReplayScreen",
        "RunScreen",
        "YamlScreen",
    }


def _digest(done_stdout: str) -> str:
    return str(json.loads(done_stdout)["plan"]["digest"])


@pytest.mark.parametrize("stage", ["config", "environment", "review", "yaml"])
async def test_a_launch_at_any_stage_makes_the_same_plan(
    tunedeck: Command, folder: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.chdir(folder)
    chosen = replace(_selection(folder), profile="mine")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        if stage == "yaml":
            catalog = load_catalog()
            screen: Page = YamlScreen(form_of(chosen, catalog), chosen, catalog)
        else:
            at: Stage = stage  # type: ignore[assignment]
            screen = LaunchScreen(Draft.begin(chosen, at))
        await app.push_screen(screen)
        await until(pilot, lambda: "--dry-run" in shown(pilot))
        command = screen.command_line
    done = tunedeck(*shlex.split(command)[1:], "--json")
    assert _digest(done.stdout) == resolve(chosen).digest


async def test_the_commands_of_home(tunedeck: Command, folder: Path, launched: Launcher) -> None:
    record = launched(_SCRIPT, name="done")
    save_replay(resolve(_selection(folder)).to_json(), "mine")
    app = WizardApp()
    seen: dict[str, str] = {}
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "✓ succeeded" in shown(pilot) and "mine" in shown(pilot))
        everything = app.screen.query_one("#everything", OptionList)
        for line in ("new", f"run:{record.run_id}", "replay:mine"):
            everything.highlighted = everything.get_option_index(line)
            await pilot.pause()
            assert isinstance(app.screen, Page)
            seen[line] = app.screen.command_line
    listed = tunedeck(*shlex.split(seen["new"])[1:], "--json")
    assert "peft/automodel" in [step["id"] for step in json.loads(listed.stdout)]
    told = tunedeck(*shlex.split(seen[f"run:{record.run_id}"])[1:], "--json")
    assert json.loads(told.stdout)["run_id"] == record.run_id
    again = tunedeck(*shlex.split(seen["replay:mine"])[1:], "--dry-run", "--json")
    assert _digest(again.stdout) == resolve(_selection(folder)).digest


async def test_the_step_stage_lists_what_the_command_lists(tunedeck: Command) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(Draft.begin(Selection("")))
        await app.push_screen(screen)
        await until(pilot, lambda: "peft/automodel" in shown(pilot))
        command = screen.command_line
        offered = {step.id for step in screen.offered}
    listed = json.loads(tunedeck(*shlex.split(command)[1:], "--json").stdout)
    assert offered <= {step["id"] for step in listed}


async def test_the_data_that_is_looked_at(tunedeck: Command, folder: Path) -> None:
    chosen = _selection(folder)
    config = form_of(chosen, load_catalog()).values
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = DataScreen(config, chosen)
        await app.push_screen(screen)
        await until(pilot, lambda: screen._look is not None)
        await pilot.press("v")
        await until(pilot, lambda: "--validation" in screen.command_line)
        await until(pilot, lambda: screen._look is not None and screen._look.report.rows == 100)
        look = screen._look
        assert look is not None
        done = tunedeck(*shlex.split(screen.command_line)[1:], "--json")
    document = json.loads(done.stdout)
    assert document["rows"] == look.report.rows
    assert document["inspected"][0]["tokens"] == look.rows[0].to_json()["tokens"]


async def test_a_profile_as_it_is_and_as_it_would_be(tunedeck: Command, folder: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = ProfileScreen("mine", folder)
        await app.push_screen(screen)
        await until(pilot, lambda: "nproc_per_node" in shown(pilot))
        shows = screen.command_line
        screen.changes["nproc_per_node"] = "nproc_per_node=2"
        screen._read()
        await until(pilot, lambda: "1 changed" in shown(pilot))
        sets = screen.command_line
        edited = screen._edited
        assert edited is not None
    told = json.loads(tunedeck(*shlex.split(shows)[1:], "--json").stdout)
    assert told["values"]["nproc_per_node"]["value"] == 1
    done = tunedeck(*shlex.split(sets)[1:])
    assert done.returncode == 0
    assert (folder / "env.toml").read_text() == edited.mended.after


async def test_an_env_file_that_is_made(tunedeck: Command, folder: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = EnvFileScreen(folder)
        await app.push_screen(screen)
        screen.answers["slurm_base.host"] = "login.test"
        screen._make()
        await until(
            pilot, lambda: screen.generated is not None and "login.test" in screen.generated.text
        )
        made = screen.generated
        assert made is not None
        command = screen.command_line
    done = tunedeck(*shlex.split(command)[1:], "--dry-run", "--json")
    assert json.loads(done.stdout)["text"] == made.text


async def test_a_saved_launch(tunedeck: Command, folder: Path) -> None:
    save_replay(resolve(_selection(folder)).to_json(), "mine")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = ReplayScreen("mine")
        await app.push_screen(screen)
        await until(pilot, lambda: "Nothing has changed" in shown(pilot))
        command = screen.command_line
    done = tunedeck(*shlex.split(command)[1:], "--dry-run", "--json")
    assert _digest(done.stdout) == resolve(_selection(folder)).digest


async def test_a_run_s_log_its_curves_and_its_facts(tunedeck: Command, launched: Launcher) -> None:
    record = launched(_SCRIPT)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = RunScreen(record)
        await app.push_screen(screen)
        await until(pilot, lambda: "✓ succeeded" in shown(pilot))
        log = screen.command_line
        await pilot.press("l", "l")
        curves = screen.command_line
        await pilot.press("d")
        facts = screen.command_line
    assert "step=8" in tunedeck(*shlex.split(log)[1:]).stdout
    assert len(json.loads(tunedeck(*shlex.split(curves)[1:], "--json").stdout)) == 8
    assert json.loads(tunedeck(*shlex.split(facts)[1:], "--json").stdout)["state"] == "succeeded"


async def test_several_runs(tunedeck: Command, launched: Launcher) -> None:
    records = [launched(_SCRIPT, name="one"), launched(_SCRIPT, name="two")]
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = CompareScreen(records)
        await app.push_screen(screen)
        await until(pilot, lambda: "1 one" in shown(pilot) and "2 two" in shown(pilot))
        command = screen.command_line
        drawn = [line for line in shown(pilot).splitlines() if "┤" in line]
    done = tunedeck(*shlex.split(command)[1:])
    assert "step 8" in done.stdout
    assert drawn[0].strip().split("┤")[0] in done.stdout
