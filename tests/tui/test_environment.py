from __future__ import annotations

import shlex
import threading
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from tests.conftest import Command
from tests.tui.conftest import said, shown, until
from tunedeck.core.backends.local.backend import LocalBackend
from tunedeck.core.drafts import Draft, list_drafts
from tunedeck.core.env.load import load_env_files
from tunedeck.core.errors import ReachError
from tunedeck.core.selection import Selection
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.ask import AskText, Confirm
from tunedeck.tui.screens.env_file import EnvFileScreen
from tunedeck.tui.screens.launch import LaunchScreen
from tunedeck.tui.screens.profile import ProfileScreen

_ENV = """\
# Ours.
[base]
executor = "local"  # stays
nproc_per_node = 1

[kid]
extends = "base"
time = "2h"
"""


@pytest.fixture
def env_file(working_folder: Path) -> Path:
    path = working_folder / "env.toml"
    path.write_text(_ENV)
    return path


def _was_said(pilot: Pilot[None], words: str) -> bool:
    return words in said(pilot)


async def _environment(pilot: Pilot[None], profile: str = "kid") -> LaunchScreen:
    chosen = Selection("peft/automodel", config="tiny", profile=profile)
    screen = LaunchScreen(Draft.begin(chosen, "environment"))
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: "env files" in shown(pilot) and "base" in shown(pilot))
    return screen


async def test_a_finding_is_shown_with_its_line_and_mended_by_one_key(env_file: Path) -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await _environment(pilot)
        await until(pilot, lambda: "x fixes" in shown(pilot))
        await pilot.press("tab")
        await until(pilot, lambda: 'time = "2h"' in shown(pilot))
        await pilot.press("x")
        await until(pilot, lambda: '+time = "02:00:00"' in said(pilot))
        await until(pilot, lambda: "x fixes" not in shown(pilot))
    assert env_file.read_text() == _ENV.replace('"2h"', '"02:00:00"')


async def test_read_only_mends_and_writes_nothing(env_file: Path) -> None:
    async with WizardApp(read_only=True).run_test(size=(80, 24)) as pilot:
        await _environment(pilot)
        await until(pilot, lambda: "x fixes" in shown(pilot))
        for key, what in (("x", "Mending"), ("f2", "Renaming"), ("delete", "Deleting")):
            await pilot.press(key)
            await until(pilot, partial(_was_said, pilot, f"{what} is off"))
    assert env_file.read_text() == _ENV


async def test_a_profile_is_edited_and_written_only_when_asked(env_file: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await _environment(pilot, "base")
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, ProfileScreen))
        screen = app.screen
        assert isinstance(screen, ProfileScreen)
        await until(pilot, lambda: "gpus_per_node" in shown(pilot))
        keys = screen.query_one("#keys", OptionList)
        keys.highlighted = keys.get_option_index("nproc_per_node")
        await pilot.press("enter")
        typed = app.screen.query_one(Input)
        typed.value = "many"
        await until(pilot, lambda: "✗" in shown(pilot))
        await pilot.press("enter")
        typed.value = "2"
        await pilot.press("enter")
        await until(pilot, lambda: "1 changed" in shown(pilot))
        assert screen.command_line == "tunedeck env set base nproc_per_node=2"
        assert env_file.read_text() == _ENV
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n", "w")
        await until(pilot, lambda: "Wrote" in said(pilot))
        await until(pilot, lambda: "0 changed" in shown(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, LaunchScreen))
    assert env_file.read_text() == _ENV.replace("per_node = 1", "per_node = 2")


async def test_a_profile_is_renamed_and_those_that_extend_it_follow(env_file: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _environment(pilot, "base")
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, AskText))
        await pilot.press("ctrl+u", *"kid", "enter")
        assert "'kid' already" in shown(pilot)
        await pilot.press("ctrl+u", *"site", "enter")
        await until(pilot, lambda: "'base' is 'site' now, for kid too." in said(pilot))
        assert "$ tunedeck env rename base site" in said(pilot)
        await until(pilot, lambda: screen.selection.profile == "site" and "✓ site" in shown(pilot))
    assert env_file.read_text() == _ENV.replace("[base]", "[site]").replace('"base"', '"site"')
    assert env_file.with_name("env.toml.bak").read_text() == _ENV


async def test_a_profile_is_taken_out_only_when_sure_and_not_while_others_extend_it(
    env_file: Path,
) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await _environment(pilot, "base")
        await pilot.press("delete")
        await until(pilot, lambda: "kid extends it" in said(pilot))
        await pilot.press("down")
        for answer in ("n", "y"):
            assert env_file.read_text() == _ENV
            await pilot.press("delete")
            await until(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press(answer)
            await until(pilot, lambda: app.screen is screen)
        await until(pilot, lambda: "'kid' is out of env.toml" in said(pilot))
        await until(pilot, lambda: "kid" not in shown(pilot).replace("kid' is", ""))
    assert env_file.read_text() == _ENV[: _ENV.index("\n[kid]")]


async def test_the_built_in_profile_says_why_it_cannot_be_edited() -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        screen = LaunchScreen(
            Draft.begin(Selection("peft/automodel", config="tiny"), "environment")
        )
        await pilot.app.push_screen(screen)
        await until(pilot, lambda: "built in" in shown(pilot))
        await pilot.press("e")
        await until(pilot, lambda: "is built in" in said(pilot))


async def test_an_env_file_is_made_from_the_site_s_values_as_the_command_makes_it(
    working_folder: Path, tmp_path: Path, tunedeck: Command
) -> None:
    app = WizardApp()
    async with app.run_test(size=(120, 36)) as pilot:
        await _walk_to_form(pilot)
        screen = app.screen
        assert isinstance(screen, EnvFileScreen)
        await pilot.press("down", "enter")
        app.screen.query_one(Input).value = "login.test"
        await pilot.press("enter")
        await until(pilot, lambda: 'host = "login.test"' in shown(pilot))
        await pilot.press("enter")
        app.screen.query_one(Input).value = "010"
        await pilot.press("enter")
        await until(pilot, lambda: screen.answers.get("slurm_base.account") == "010")
        await until(pilot, lambda: 'account = "010"' in shown(pilot))
        command = screen.command_line
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, LaunchScreen))
        await until(pilot, lambda: "✗ slurm_peft_automodel" in shown(pilot))
    text = (working_folder / "env.slurm.toml").read_text()
    assert tomllib.loads(text)["slurm_base"]["account"] == "010"
    done = tunedeck(*shlex.split(command)[1:], "--yes")
    assert done.returncode == 0
    assert (tmp_path / "work" / "env.slurm.toml").read_text() == text


_ANSWERED = {"slurm": {"slurm_base.host": "login.test"}}


async def test_answers_that_were_kept_are_there_when_the_draft_is_opened_again() -> None:
    async with WizardApp().run_test(size=(120, 36)) as pilot:
        draft = Draft.begin(Selection("peft/automodel", config="tiny"), "environment")
        await pilot.app.push_screen(LaunchScreen(replace(draft, answers=_ANSWERED)))
        await until(pilot, lambda: "built in" in shown(pilot))
        await pilot.press("g")
        await until(pilot, lambda: 'host = "login.test"' in shown(pilot))


async def test_answers_are_kept_over_another_kind_and_asked_about_when_one_leaves() -> None:
    app = WizardApp()
    async with app.run_test(size=(120, 36)) as pilot:
        await _walk_to_form(pilot)
        screen = app.screen
        assert isinstance(screen, EnvFileScreen)
        await pilot.press("down", "enter", *"login test")
        await until(pilot, lambda: "a host has no spaces" in shown(pilot))
        await pilot.press("ctrl+u", *"login.test", "enter")
        await until(pilot, lambda: 'host = "login.test"' in shown(pilot))
        await until(pilot, lambda: [one.answers for one in list_drafts()] == [_ANSWERED])
        await pilot.press("home", "enter", *"xyz", "enter")
        await until(pilot, lambda: "Nothing fits what is typed" in shown(pilot))
        await pilot.press("ctrl+u", *"lepton", "enter")
        await until(pilot, lambda: "writes env.lepton.toml" in shown(pilot))
        assert screen.answers == {}
        await pilot.press("home", "enter", *"slurm", "enter")
        await until(pilot, lambda: 'host = "login.test"' in shown(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "Leave 1 answer unwritten?" in shown(pilot))
        await pilot.press("n")
        await until(pilot, lambda: app.screen is screen)
        await pilot.press("escape", "y")
        await until(pilot, lambda: isinstance(app.screen, LaunchScreen))
        await until(pilot, lambda: [one.answers for one in list_drafts()] == [{}])


async def _walk_to_form(pilot: Pilot[None]) -> None:
    chosen = Selection("peft/automodel", config="tiny")
    await pilot.app.push_screen(LaunchScreen(Draft.begin(chosen, "environment")))
    await until(pilot, lambda: "built in" in shown(pilot))
    await pilot.press("g")
    await until(pilot, lambda: isinstance(pilot.app.screen, EnvFileScreen))
    await until(pilot, lambda: "writes env.slurm.toml" in shown(pilot))


async def test_what_will_be_wrong_in_a_new_env_file_is_said_before_it_is_written(
    working_folder: Path,
) -> None:
    app = WizardApp()
    async with app.run_test(size=(120, 36)) as pilot:
        await _walk_to_form(pilot)
        assert "✓ 29 profiles   ! 4 values still open" in shown(pilot)
        beside = working_folder / "env.toml"
        beside.write_text('[slurm_peft_automodel]\nexecutor = "local"\n')
        await pilot.press("down", "enter", *"my host", "enter", "enter")
        await until(pilot, lambda: "✗ error host 'my host' is no host" in shown(pilot))
        assert "env.toml defines slurm_peft_automodel too" in shown(pilot)
        assert "! 29 profiles   ! 3 values still open" in shown(pilot)


async def test_a_name_that_no_search_finds_is_said_and_taken_all_the_same() -> None:
    app = WizardApp()
    async with app.run_test(size=(120, 36)) as pilot:
        await _walk_to_form(pilot)
        fields = app.screen.query_one(OptionList)
        fields.highlighted = fields.get_option_index("file")
        await pilot.press("enter", "ctrl+u", *"mine.toml")
        await until(pilot, lambda: "No search finds a file of this name" in shown(pilot))
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "writes mine.toml" in shown(pilot))


async def test_esc_leaves_the_search_of_keys_before_the_profile(env_file: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await _environment(pilot, "base")
        await pilot.press("e")
        await until(pilot, lambda: "gpus_per_node" in shown(pilot))
        await pilot.press("slash", *"time", "enter")
        await until(pilot, lambda: "gpus_per_node" not in shown(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "gpus_per_node" in shown(pilot))
        assert isinstance(app.screen, ProfileScreen)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, LaunchScreen))


async def test_a_file_that_is_there_is_updated_only_when_asked(working_folder: Path) -> None:
    path = working_folder / "env.slurm.toml"
    path.write_text('# mine\n[mine]\nexecutor = "local"\n')
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        chosen = Selection("peft/automodel", config="tiny")
        await app.push_screen(LaunchScreen(Draft.begin(chosen, "environment")))
        await until(pilot, lambda: "mine" in shown(pilot))
        await pilot.press("g")
        await until(pilot, lambda: "is there already" in shown(pilot))
        await pilot.press("w")
        await until(pilot, lambda: "nothing to write" in said(pilot))
        await pilot.press("u")
        await until(pilot, lambda: "writes env.slurm.toml" in shown(pilot))
        await pilot.press("w")
        await until(pilot, lambda: "env.slurm.toml.bak" in said(pilot))
    assert path.read_text().startswith("# mine")


async def test_what_a_place_has_is_asked_only_on_demand_and_can_be_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import asyncio

    asked: list[str] = []

    async def hangs(self: LocalBackend, profile_values: dict[str, Any]) -> dict[str, Any]:
        asked.append("inventory")
        await asyncio.sleep(3600)
        return {}

    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        chosen = Selection("peft/automodel", config="tiny")
        screen = LaunchScreen(Draft.begin(chosen, "environment"))
        await app.push_screen(screen)
        await until(pilot, lambda: "built in" in shown(pilot))
        await pilot.press("i")
        await until(pilot, lambda: "local has now" in shown(pilot))
        assert screen.command_line == "tunedeck queue local"
        monkeypatch.setattr(LocalBackend, "inventory", hangs)
        await pilot.press("i")
        await until(pilot, lambda: "esc gives up" in shown(pilot) and bool(asked))
        await pilot.press("escape")
        await until(pilot, lambda: "Given up: Asking local" in said(pilot))
        assert app.screen is screen
        await until(pilot, lambda: "esc gives up" not in shown(pilot))


async def test_a_file_that_cannot_be_read_is_shown_at_its_line_and_read_again(
    env_file: Path,
) -> None:
    env_file.write_text('[base]\nexecutor = "local\n')
    (env_file.parent / "env.more.toml").write_text('[beside]\nexecutor = "local"\n')
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        chosen = Selection("peft/automodel", config="tiny")
        screen = LaunchScreen(Draft.begin(chosen, "environment"))
        await pilot.app.push_screen(screen)
        await until(pilot, lambda: "This is not valid TOML" in shown(pilot))
        await until(pilot, lambda: 'executor = "local' in shown(pilot))
        assert screen.command_line == "tunedeck env check"
        assert all(f"✓ {name}" in shown(pilot) for name in ("local", "beside"))
        await pilot.press("enter")
        await until(pilot, lambda: "r reads it again" in said(pilot))
        env_file.write_text(_ENV)
        await pilot.press("r")
        await until(pilot, lambda: "✓ base" in shown(pilot))


async def test_what_is_wrong_with_what_it_inherits_is_wrong_with_a_profile(env_file: Path) -> None:
    env_file.write_text(_ENV.replace("nproc_per_node = 1", "noodles = 1"))
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await _environment(pilot)
        await until(pilot, lambda: "✗ kid" in shown(pilot) and "noodles" in shown(pilot))
        await pilot.press("tab", "down", "enter")
        await until(pilot, lambda: "Profile › base" in shown(pilot))


async def test_the_profiles_made_for_the_step_come_first_and_any_is_found_by_typing(
    env_file: Path,
) -> None:
    more = "".join(f'[other_{n}]\nextends = "base"\n' for n in range(30))
    env_file.write_text(f'{_ENV}{more}[lab_peft_automodel]\nextends = "base"\n')
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        screen = await _environment(pilot, "local")
        rows = [line.split()[:2] for line in shown(pilot).splitlines()]
        first = rows.index(["for", "peft/automodel"])  # below the path of the file, long or short
        assert rows[first : first + 3] == [
            ["for", "peft/automodel"],
            ["✓", "lab_peft_automodel"],
            ["✓", "local"],
        ]
        await pilot.press("slash", *"other_17", "enter", "enter")
        await until(pilot, lambda: screen.selection.profile == "other_17")


async def test_a_secret_is_neither_shown_nor_taken(env_file: Path) -> None:
    canary = "hf_" + "Gd7Kq2" * 6
    env_file.write_text(f'{_ENV}[kid.env_vars]\nHF_TOKEN = "{canary}"\n')
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await _environment(pilot)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, ProfileScreen))
        screen = app.screen
        assert isinstance(screen, ProfileScreen)
        await until(pilot, lambda: "env_vars.HF_TOKEN" in shown(pilot))
        keys = screen.query_one("#keys", OptionList)
        keys.highlighted = keys.get_option_index("env_vars.HF_TOKEN")
        await pilot.press("enter")
        typed = app.screen.query_one(Input)
        assert typed.value == ""
        assert canary not in shown(pilot)
        typed.value = canary[::-1]
        await pilot.press("enter", "enter", "enter")
        await until(pilot, lambda: "This is a secret, which no file may hold" in shown(pilot))
        assert screen.changes == {}
        typed.value = "${oc.env:HF_TOKEN}"
        await pilot.press("enter")
        await until(pilot, lambda: "1 changed" in shown(pilot))
        assert canary not in shown(pilot)
        assert canary[::-1] not in screen.command_line
        await pilot.press("w")
        await until(pilot, lambda: "Wrote" in said(pilot))
    assert canary not in env_file.read_text()


async def test_changes_are_kept_where_the_file_was_changed_meanwhile(env_file: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = ProfileScreen("base", env_file.parent)
        await app.push_screen(screen)
        await until(pilot, lambda: "nproc_per_node" in shown(pilot))
        screen.changes["nproc_per_node"] = "nproc_per_node=2"
        screen._read()
        await until(pilot, lambda: screen._edited is not None and "1 changed" in shown(pilot))
        env_file.write_text(_ENV.replace("# Ours.", "# Theirs."))
        await pilot.press("w")
        await until(pilot, lambda: "Your changes are kept here" in said(pilot))
        await pilot.press("w")
        await until(pilot, lambda: "Wrote" in said(pilot))
    theirs = _ENV.replace("# Ours.", "# Theirs.")
    assert env_file.read_text() == theirs.replace("per_node = 1", "per_node = 2")


async def test_what_is_changed_last_is_written_too_though_w_is_typed_at_once(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, go_on = WizardApp(), threading.Event()

    def slowly(*given: Any) -> Any:
        assert go_on.wait(60)
        return load_env_files(*given)

    async with app.run_test(size=(80, 24)) as pilot:
        screen = ProfileScreen("base", env_file.parent)
        await app.push_screen(screen)
        await until(pilot, lambda: screen.ready)
        screen.changes["nproc_per_node"] = "nproc_per_node=2"
        screen._read()
        await until(pilot, lambda: screen.ready)
        monkeypatch.setattr("tunedeck.tui.screens.profile_files.load_env_files", slowly)
        screen.changes["venv"] = "venv=/opt/x"
        screen._read()
        await pilot.press("w")
        go_on.set()
        await until(pilot, lambda: "Wrote" in said(pilot))
    assert "per_node = 2" in env_file.read_text()
    assert 'venv = "/opt/x"' in env_file.read_text()


async def test_one_key_leads_to_the_profile_that_a_key_is_inherited_from(env_file: Path) -> None:
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(ProfileScreen("kid", env_file.parent, key="nproc_per_node"))
        await until(pilot, lambda: "from profile base" in shown(pilot))
        await pilot.press("b")
        await until(pilot, lambda: "Profile › base" in shown(pilot))
        await until(pilot, lambda: "nproc_per_node  " in shown(pilot).splitlines()[-6])


async def test_what_a_place_could_not_be_asked_for_stays_to_be_read(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(self: LocalBackend, profile_values: dict[str, Any]) -> dict[str, Any]:
        raise ReachError("Nobody answers there.", fix="Try the VPN.")

    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await _environment(pilot)
        monkeypatch.setattr(LocalBackend, "inventory", refuses)
        await pilot.press("i")
        await until(pilot, lambda: "✗ Nobody answers there." in shown(pilot))
        assert "Try the VPN." in shown(pilot)
        monkeypatch.undo()
        await pilot.press("i")
        await until(pilot, lambda: "kid has now" in shown(pilot))
        assert "Nobody answers" not in shown(pilot)
