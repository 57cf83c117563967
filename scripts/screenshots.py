"""Takes the pictures in docs/screenshots: every screen of the wizard, from real runs.

    python scripts/screenshots.py

It fine-tunes the tiny model twice on this machine, in a folder of its own that is removed after, so
that it takes about two minutes. The pictures are SVG and name no font of another host.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_TARGET = _ROOT / "docs" / "screenshots"
_SIZE = (110, 32)
_SHOWN = "/home/ada/models"  # as many characters as the folder of the runs has

sys.path.insert(0, str(_ROOT))


def main() -> None:
    """Make the runs, walk through the screens, and write the pictures."""
    home = Path(tempfile.mkdtemp(prefix="td-", dir="/tmp"))
    work = home / "math"
    work.mkdir()
    os.environ |= {"TUNEDECK_HOME": str(home / "home"), "HF_HUB_OFFLINE": "1"}
    os.chdir(work)
    try:
        asyncio.run(_take(work))
    finally:
        shutil.rmtree(home)


def _train(folder: Path, name: str, *overrides: str) -> str:
    """A run of the tiny step, waited for; its id."""
    from tunedeck.core.launch import launch
    from tunedeck.core.prepare import prepare
    from tunedeck.core.runs.registry import Registry
    from tunedeck.core.runs.watch import wait_until_ended
    from tunedeck.core.selection import Selection

    async def run() -> str:
        chosen = Selection(
            "peft/automodel", config="./mine.yaml", overrides=overrides, name=name, cwd=folder
        )
        prepared = await prepare(chosen, online=False)
        registry = Registry()
        record = await launch(prepared.plan, prepared.submission, prepared.backend, registry)
        ended = await wait_until_ended(record, registry, 600)
        print(f"{name}: {ended.state}")
        return ended.run_id

    return asyncio.run(run())


async def _take(folder: Path) -> None:
    from textual.widgets import OptionList

    from tests.tui.conftest import shown, until
    from tests.tui.scenes import SCENES, prepare_folder
    from tunedeck.core.drafts import Draft
    from tunedeck.core.runs.registry import Registry
    from tunedeck.core.selection import Selection
    from tunedeck.tui.app import WizardApp
    from tunedeck.tui.screens.compare import CompareScreen
    from tunedeck.tui.screens.launch import LaunchScreen
    from tunedeck.tui.screens.run import RunScreen

    async def app_at(name: str, walk: Callable[..., object], ready: str = "palette") -> None:
        app = WizardApp()
        async with app.run_test(size=_SIZE) as pilot:
            app.animation_level = "none"
            await until(pilot, lambda: "palette" in shown(pilot))
            result = walk(app, pilot)
            if asyncio.iscoroutine(result):
                await result
            await until(pilot, lambda: ready in shown(pilot))
            await pilot.pause(1.0)
            _write(name, app.export_screenshot(title="tunedeck"))

    await app_at("home-empty", lambda _app, _pilot: None, "▶ Demo")
    prepare_folder(folder)
    first = await asyncio.to_thread(_train, folder, "first-try")
    other = await asyncio.to_thread(
        _train, folder, "gentler", "optimizer.lr=1e-3", "step_scheduler.max_steps=120"
    )
    records = [Registry().get(run_id) for run_id in (first, other)]
    chosen = Selection(
        "peft/automodel", config="./mine.yaml", overrides=("peft.dim=16",), cwd=folder
    )

    async def launch_at(app: WizardApp, pilot: object, stage: str) -> None:
        await app.push_screen(LaunchScreen(Draft.begin(chosen, stage)))  # type: ignore[arg-type]

    async def run(app: WizardApp, _pilot: object) -> None:
        await app.push_screen(RunScreen(records[0]))

    async def curves(app: WizardApp, pilot: object) -> None:
        await run(app, pilot)
        await until(pilot, lambda: "step 200" in shown(pilot))  # type: ignore[arg-type]
        await pilot.press("l", "l")  # type: ignore[attr-defined]

    async def environment(app: WizardApp, pilot: object) -> None:
        await launch_at(app, pilot, "environment")
        await until(pilot, lambda: "lab" in shown(pilot))  # type: ignore[arg-type]
        profiles = app.screen.query_one("#profiles", OptionList)
        profiles.highlighted = profiles.get_option_index("lab")

    await app_at("home", lambda _app, _pilot: None, "gentler")
    await app_at("step", lambda app, pilot: launch_at(app, pilot, "step"), "LoRA fine-tuning")
    await app_at("config", lambda app, pilot: launch_at(app, pilot, "config"), "1 changed")
    await app_at("environment", environment, "x fixes")
    await app_at("review", lambda app, pilot: launch_at(app, pilot, "review"), "✓ Ready")
    await app_at("run", run, "step 200")
    await app_at("curves", curves, "learning rate")
    compared = lambda app, _pilot: app.push_screen(CompareScreen(records))  # noqa: E731
    await app_at("compare", compared, "2 gentler")
    for name in ("data", "yaml", "profile", "env-file", "replay", "changes", "help", "run-failed"):
        scene = SCENES[name]
        if name == "help":
            walk: Callable[..., object] = lambda _app, pilot: pilot.press("question_mark")  # noqa: E731
        else:
            walk = lambda _app, pilot, scene=scene: scene(pilot, folder)  # noqa: E731
        await app_at(name, walk)


def _write(name: str, svg: str) -> None:
    """Write a picture without what it would load from other hosts, and with a home like any."""
    svg = re.sub(r"/tmp/td-\w{8}", _SHOWN, svg)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    _TARGET.mkdir(parents=True, exist_ok=True)
    (_TARGET / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(f"{name}.svg")


if __name__ == "__main__":
    main()
