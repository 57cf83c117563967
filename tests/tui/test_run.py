from __future__ import annotations

from textual.widgets import Static

from tests.tui.conftest import Launcher, said, shown, until
from tunedeck.core.plan import Launch
from tunedeck.core.registry import Registry
from tunedeck.core.states import RunState
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.ask import Confirm
from tunedeck.tui.screens.home import HomeScreen
from tunedeck.tui.screens.run import RunScreen

_TRAINS = """
import time
print("tunedeck: total_steps=4", flush=True)
for step in range(1, 5):
    print(f"step={step} loss={5 - step}.5 lr=0.001", flush=True)
    time.sleep(0.1)
"""
_SLEEPS = "import time; print('here', flush=True); time.sleep(60)"


async def test_a_run_is_followed_to_its_end(launched: Launcher) -> None:
    record = launched(_TRAINS)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await until(pilot, lambda: "✓ succeeded" in shown(pilot))
        await until(pilot, lambda: "step 4/4" in shown(pilot))
        assert "step=4 loss=1.5" in shown(pilot)
        assert "training loss" in shown(pilot)
        await until(pilot, lambda: "? Help" in shown(pilot).splitlines()[-1])
        assert f"$ tunedeck runs logs -f {record.run_id}" in shown(pilot)
        await pilot.press("v", "l", "r", "enter")
        await until(pilot, lambda: "learning rate" in shown(pilot))
        await pilot.press("d")
        await until(pilot, lambda: "digest" in shown(pilot))
        await pilot.press("escape", "escape")
        assert isinstance(app.screen, HomeScreen)


async def test_cancelling_asks_first_and_is_confirmed(launched: Launcher) -> None:
    record = launched(_SLEEPS)
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await until(pilot, lambda: "here" in shown(pilot))
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("enter")  # the harmless button has the focus
        assert Registry().get(record.run_id).state is RunState.RUNNING
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(pilot, lambda: "✗ cancelled" in shown(pilot))
    assert Registry().get(record.run_id).state is RunState.CANCELLED


async def test_read_only_cancels_nothing_and_says_why(launched: Launcher) -> None:
    record = launched(_SLEEPS)
    app = WizardApp(read_only=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await pilot.press("x")
        await until(pilot, lambda: "--read-only" in said(pilot))
        assert isinstance(app.screen, RunScreen)


async def test_a_failed_run_says_why_and_what_to_do(launched: Launcher) -> None:
    record = launched("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await until(pilot, lambda: "cause:" in shown(pilot))
        outcome = str(app.screen.query_one("#outcome", Static).content)
        assert "memory" in outcome
        assert "fix:" in outcome


async def test_a_run_that_ended_long_ago_is_read_from_its_spool(launched: Launcher) -> None:
    record = launched(_TRAINS)
    registry = Registry()
    app = WizardApp()
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: registry.get(record.run_id).state is RunState.SUCCEEDED)
        await app.push_screen(RunScreen(registry.get(record.run_id)))
        await until(pilot, lambda: "step=4 loss=1.5" in shown(pilot))
        await until(pilot, lambda: "step 4/4" in shown(pilot))


_RANKS = """
for number in range(200):
    print(f"[rank{number % 2}]: line {number}", flush=True)
print("[rank1]: ValueError: boom", flush=True)
"""


async def test_the_log_can_be_narrowed_and_widened_again(launched: Launcher) -> None:
    record = launched(_RANKS, launch=Launch("command", "x", nproc_per_node=2))
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = RunScreen(record)
        await app.push_screen(screen)
        await until(pilot, lambda: "line 199" in shown(pilot))
        await pilot.press("t", *"errors", "enter")
        await until(pilot, lambda: "boom" in shown(pilot) and "line 199" not in shown(pilot))
        assert screen.command_line.endswith("--level error")
        await pilot.press("t", *"rank 0", "enter")
        await until(pilot, lambda: "line 198" in shown(pilot) and "line 199" not in shown(pilot))
        await pilot.press("t", *"all", "enter")
        await until(pilot, lambda: "line 199" in shown(pilot))


async def test_all_curves_are_seen_at_once(launched: Launcher) -> None:
    record = launched(
        "for s in range(9): print(f'step={s+1} loss=1 lr=2 grad_norm=3 mem_gib=4', flush=True)"
    )
    app = WizardApp()
    async with app.run_test(size=(120, 36)) as pilot:
        await app.push_screen(RunScreen(record))
        await until(pilot, lambda: "step 9" in shown(pilot))
        await pilot.press("l", "l")
        titles = ("training loss", "learning rate", "gradient norm", "memory in GiB")
        await until(pilot, lambda: all(title in shown(pilot) for title in titles))


async def test_fetching_from_this_machine_says_where_the_files_are(launched: Launcher) -> None:
    record = launched("pass")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await pilot.press("g")
        await until(pilot, lambda: "are on this machine" in said(pilot))
