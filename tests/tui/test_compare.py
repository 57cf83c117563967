from __future__ import annotations

from tests.tui.conftest import Launcher, said, shown, until
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens.compare import CompareScreen

_LOSSES = "print('\\n'.join(f'step={s} loss={%s - s / 10}' for s in range(1, 9)))"


async def test_marked_runs_are_drawn_over_each_other(launched: Launcher) -> None:
    launched(_LOSSES % 3, name="lower")
    launched(_LOSSES % 5, name="higher")
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: shown(pilot).count("✓ succeeded") == 2)
        await pilot.press("down", "space", "c")
        await until(pilot, lambda: "Mark two runs" in said(pilot))
        await pilot.press("down", "space")
        await until(pilot, lambda: shown(pilot).count("◆") == 2)
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        await until(pilot, lambda: "1 higher 4.2" in shown(pilot) and "2 lower 2.2" in shown(pilot))
