from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.color import ColorType

from tests.tui.conftest import shown, until
from tests.tui.scenes import SCENES, prepare_folder
from tests.tui.snapshots import check
from tunedeck.core import hardware
from tunedeck.tui.app import WizardApp
from tunedeck.tui.screens import home_rows

SMALL, LARGE = (80, 24), (120, 36)


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose path has always as many characters, on a machine that is always the same."""
    folder = Path(tempfile.mkdtemp(prefix="td-", dir="/tmp"))
    prepare_folder(folder)
    monkeypatch.setenv("TUNEDECK_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    for name in ("SLURM_HOST", "SLURM_ACCOUNT", "SLURM_PARTITION", "NEMOTRON_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 16 << 30)
    monkeypatch.setattr(hardware, "local_gpus", list)
    monkeypatch.setattr(home_rows, "age", lambda _seconds: "3m")
    yield folder
    shutil.rmtree(folder)


async def _text(name: str, folder: Path, size: tuple[int, int]) -> tuple[str, WizardApp]:
    app = WizardApp()
    async with app.run_test(size=size) as pilot:
        app.animation_level = "none"
        await SCENES[name](pilot, folder)
        await until(pilot, lambda: "palette" in shown(pilot).splitlines()[-1])
        await pilot.pause(0.3)
        return shown(pilot), app


@pytest.mark.parametrize("name", SCENES)
async def test_each_screen_at_80_by_24(name: str, fixed: Path) -> None:
    text, _ = await _text(name, fixed, SMALL)
    check(text, f"{name}-80x24")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
async def test_each_screen_at_120_by_36(name: str, fixed: Path) -> None:
    text, _ = await _text(name, fixed, LARGE)
    check(text, f"{name}-120x36")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
async def test_without_colors_each_screen_says_the_same(
    name: str, fixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = WizardApp()
    async with app.run_test(size=SMALL) as pilot:
        await SCENES[name](pilot, fixed)
        await until(pilot, lambda: "palette" in shown(pilot).splitlines()[-1])
        await pilot.pause(0.3)
        text = shown(pilot)
        strips = app.screen._compositor.render_strips()
        filters = app._filters
        for strip in strips:
            plain = strip
            for one in filters:
                plain = plain.apply_filter(one, app.screen.background_colors[1])
            for segment in plain:
                for color in (segment.style.color, segment.style.bgcolor) if segment.style else ():
                    if color is None or color.type is not ColorType.TRUECOLOR:
                        continue
                    red, green, blue = color.get_truecolor()
                    assert max(red, green, blue) - min(red, green, blue) <= 1, segment
    if name == "data":  # what colors tell there is told by signs
        assert "⟦" in text
    else:
        check(text, f"{name}-80x24")
