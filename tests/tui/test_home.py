from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.command import CommandPalette
from textual.dom import DOMNode
from textual.widgets import OptionList

from tests.tui.conftest import Launcher, said, shown, until
from tests.tui.scenes import SCENES, prepare_folder
from tunedeck.core.backends.base import Handle
from tunedeck.core.backends.local.backend import LocalBackend
from tunedeck.core.drafts import Draft, save_draft
from tunedeck.core.errors import NotFoundError
from tunedeck.core.runs import overview
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import Selection
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.help import HelpScreen
from tunedeck.tui.screens.home import HomeScreen
from tunedeck.tui.screens.run import RunScreen
from tunedeck.tui.screens.too_small import TooSmallScreen


async def test_an_empty_home_says_what_to_press_first_and_marks_the_demo() -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "tiny-lora" in shown(pilot))
        await until(pilot, lambda: "Nothing has run yet. Press enter" in shown(pilot))
        marked = pilot.app.screen.query_one(OptionList).highlighted_option
        assert marked is not None
        assert marked.id == "demo"


async def test_a_run_is_listed_with_its_state_and_opens(launched: Launcher) -> None:
    launched("print('step=1 loss=2.5', flush=True)", name="first-run")
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "✓ succeeded" in shown(pilot))
        assert "first-run" in shown(pilot)
        assert "2.5" in shown(pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, HomeScreen)


async def test_a_list_that_ends_before_the_oldest_run_says_so(
    launched: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first-run", "second-run"):
        launched("", name=name)
    monkeypatch.setattr(overview, "Overview", partial(overview.Overview, limit=1))
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "second-run" in shown(pilot))
        assert "first-run" not in shown(pilot)
        assert "tunedeck runs list" in shown(pilot)


async def test_a_draft_is_offered(home: Path) -> None:
    save_draft(Draft.begin(Selection("peft/automodel", config="tiny"), "config"))
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Unfinished" in shown(pilot))
        assert "peft/automodel tiny → local" in shown(pilot)


async def test_a_hostile_name_reaches_the_screen_as_text_alone(launched: Launcher) -> None:
    launched("", name="\x1b]0;owned\x07[bold]x[/red]\n\u202e漢字" * 3)
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "[bold]x[/red]" in shown(pilot))
        assert "\x1b" not in shown(pilot)
        assert "\u202e" not in shown(pilot)


async def test_help_explains_the_screen_and_lists_its_keys() -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        assert "Home lists your runs" in shown(pilot)
        assert "app.quit" in shown(pilot)
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, HomeScreen)


async def test_every_action_is_in_the_palette_with_its_description() -> None:
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        commands = list(pilot.app.get_system_commands(pilot.app.screen))
        assert {"Help", "Quit", "Open", "Copy command"} <= {command.title for command in commands}
        assert all(command.help for command in commands)


async def test_too_small_a_terminal_is_told_and_nothing_below_is_lost() -> None:
    async with WizardApp().run_test(size=(50, 12)) as pilot:
        await until(pilot, lambda: isinstance(pilot.app.screen, TooSmallScreen))
        assert "60 columns and 18 rows" in " ".join(shown(pilot).split())
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: isinstance(pilot.app.screen, HomeScreen))


@pytest.mark.parametrize("size", [(60, 18), (80, 24), (120, 36)])
async def test_the_footer_is_never_clipped(size: tuple[int, int]) -> None:
    async with WizardApp().run_test(size=size) as pilot:
        await until(pilot, lambda: "palette" in shown(pilot))
        assert shown(pilot).splitlines()[-1].rstrip().endswith("palette")
        assert size[0] < 80 or "? Help" in shown(pilot).splitlines()[-1]


async def test_a_key_can_be_put_elsewhere(home: Path) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config/keys.toml").write_text('"app.help" = "f9"\n')
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await pilot.press("f9")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))


async def test_a_broken_file_of_keys_is_told_and_stops_nothing(home: Path) -> None:
    (home / "config").mkdir(parents=True)
    (home / "config/keys.toml").write_text("[[[")
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "keys.toml" in said(pilot))
        assert isinstance(pilot.app.screen, HomeScreen)


async def test_quitting_says_what_goes_on(
    launched: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    record = launched("import time; time.sleep(60)", name="long")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "long" in shown(pilot))
        await pilot.press("ctrl+q")
    assert f"tunedeck runs logs -f {record.run_id}" in capsys.readouterr().err


async def test_a_job_of_another_machine_is_attached_to(
    launched: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = launched("print('step=1 loss=2.5', flush=True)", name="elsewhere")
    registry = Registry()
    kept = registry.get(record.run_id)
    registry.delete(record.run_id)

    async def told(self: LocalBackend, job_id: str) -> tuple[Handle, dict[str, object]]:
        if job_id != "77":
            raise NotFoundError(f"There is no job {job_id}.")
        assert kept.backend_handle is not None
        return kept.backend_handle, dict(kept.plan)

    monkeypatch.setattr(LocalBackend, "adopt", told, raising=False)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "⇄ Attach" in shown(pilot))
        await pilot.press("a", *"local", "enter")
        await until(pilot, lambda: "Two words" in shown(pilot))
        await pilot.press(*" 78", "enter")
        await until(pilot, lambda: "There is no job 78" in said(pilot))
        await pilot.press("a", *"local 77", "enter")
        await until(pilot, lambda: isinstance(app.screen, RunScreen))
        await until(pilot, lambda: "loss=2.5" in shown(pilot))


def _own_actions(node: DOMNode) -> set[str]:
    """What keys do by classes of ours, beside what they do in every program of the toolkit."""
    ours = [kind for kind in type(node).__mro__ if kind.__module__.startswith("tunedeck.")]
    return {
        one.action
        for kind in ours
        for one in vars(kind).get("BINDINGS", ())
        if isinstance(one, Binding)
    }


async def test_every_action_of_every_screen_is_in_the_palette_and_can_be_rebound(
    working_folder: Path,
) -> None:
    prepare_folder(working_folder)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        for scene in ("home", "config", "environment", "review", "run", "data"):
            await SCENES[scene](pilot, working_folder)
            own = [
                active.binding
                for active in app.screen.active_bindings.values()
                if active.binding.action in _own_actions(active.node)
            ]
            assert own
            titles = {command.title for command in app.get_system_commands(app.screen)}
            for binding in own:
                assert binding.id, binding
                assert binding.description in titles
            assert all(command.help for command in app.get_system_commands(app.screen))
            key = app.get_key_display(own[0])
            await pilot.press("ctrl+p")
            await until(pilot, lambda: isinstance(app.screen, CommandPalette))
            # Its list is in the order of the alphabet: what is typed brings one into sight.
            await pilot.press(*own[0].description.casefold())
            await until(pilot, lambda key=key: f"[{key}]" in shown(pilot))  # type: ignore[misc]
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, CommandPalette))
            while len(app.screen_stack) > 1:
                app.pop_screen()
