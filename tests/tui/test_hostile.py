from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from textual.widgets import OptionList

from tests.tui.conftest import shown, until
from tunedeck.core.drafts import Draft
from tunedeck.core.resolve import resolve
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import Selection
from tunedeck.core.states import RunState, Status
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.launch import LaunchScreen
from tunedeck.tui.screens.profile import ProfileScreen
from tunedeck.tui.screens.run import RunScreen

_TOML = """\
["[bold]x[/red]"]
executor = "local"
run_command = "\\u001b]0;owned\\u0007echo \\u202e漢字 [/bold] \\u001b[2J"

[wide]
executor = "local"
venv = "{long}"
"""
_NASTY = ("\x1b", "\u202e", "\x07")


async def test_a_hostile_env_file_reaches_the_screen_as_text_alone(working_folder: Path) -> None:
    (working_folder / "env.toml").write_text(_TOML.replace("{long}", "漢" * 50_000))
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        chosen = Selection("peft/automodel", config="tiny", cwd=working_folder)
        await app.push_screen(LaunchScreen(Draft.begin(chosen, "environment")))
        await until(pilot, lambda: "[bold]x[/red]" in shown(pilot))
        profiles = app.screen.query_one("#profiles", OptionList)
        for name in ("[bold]x[/red]", "wide"):
            profiles.highlighted = profiles.get_option_index(name)
            await pilot.pause(0.2)
            assert not any(sign in shown(pilot) for sign in _NASTY)
            await app.push_screen(ProfileScreen(name, working_folder))
            await until(pilot, lambda: "executor" in shown(pilot))
            assert not any(sign in shown(pilot) for sign in _NASTY)
            app.pop_screen()


async def test_a_slurm_run_of_long_ago_opens_without_any_network(working_folder: Path) -> None:
    (working_folder / "env.toml").write_text(
        '[away]\nexecutor = "slurm"\nhost = "gone.invalid"\nremote_job_dir = "/gone"\n'
        'account = "a"\npartition = "p"\ntime = "01:00:00"\n'
    )
    chosen = Selection("peft/automodel", config="tiny", profile="away", cwd=working_folder)
    plan = resolve(replace(chosen, name="long ago"))
    registry = Registry()
    registry.add(RunRecord.of(plan, forced=False))
    registry.update(plan.run_id, Status(RunState.FAILED, "FAILED", "node fell over", 1, 1.0, 9.0))
    plan.run_dir.mkdir(parents=True)
    lines = "step=1 loss=2.5\n" + "x" * 1_000_000 + "\n\xff\xfe" + "\nthe end\n"
    (plan.run_dir / "log.txt").write_bytes(lines.encode("latin-1"))
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(registry.get(plan.run_id)))
        await until(pilot, lambda: "the end" in shown(pilot))
        await until(pilot, lambda: "training loss   2.5" in shown(pilot))
        assert "node fell over" in shown(pilot)
        await pilot.press("d")
        await until(pilot, lambda: "gone.invalid" in shown(pilot) or "away" in shown(pilot))
