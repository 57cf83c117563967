"""The screens that snapshots and pictures are taken of, with data that is always the same."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from tests.tui.conftest import shown, until
from tunedeck.core import locations
from tunedeck.core.catalog import load_catalog
from tunedeck.core.choices import form_of
from tunedeck.core.drafts import Draft, Stage, save_draft
from tunedeck.core.replays.replay import save_replay
from tunedeck.core.resolve import resolve
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.selection import Selection
from tunedeck.core.states import RunState, Status
from tunedeck.tui.screens.compare import CompareScreen
from tunedeck.tui.screens.data import DataScreen
from tunedeck.tui.screens.env_file import EnvFileScreen
from tunedeck.tui.screens.launch import LaunchScreen
from tunedeck.tui.screens.profile import ProfileScreen
from tunedeck.tui.screens.replay import ReplayScreen
from tunedeck.tui.screens.run import RunScreen
from tunedeck.tui.screens.yaml import YamlScreen

Scene = Callable[[Pilot[None], Path], Awaitable[None]]

_ENV = """\
[lab]
executor = "slurm"
host = "login.lab"
account = "nlp"
partition = "gpu"
remote_job_dir = "/lustre/ada/runs"
nodes = 2
gpus_per_node = 8
time = "2h"

[here]
executor = "local"
"""
_START = 1_790_000_000.0


def prepare_folder(folder: Path) -> None:
    """A model, data, a config and an env file of one's own."""
    assets = locations.assets_dir()
    (folder / "base").symlink_to(assets / "base")
    for name in ("train", "validation"):
        (folder / f"{name}.jsonl").symlink_to(assets / "word_problems" / f"{name}.jsonl")
    shipped = load_catalog().find("peft/automodel").configs["tiny"].read_text(encoding="utf-8")
    own = re.sub(r"\$\{tunedeck\.asset:(?:word_problems/)?([\w.]+)\}", r"./\1", shipped)
    (folder / "mine.yaml").write_text(own, encoding="utf-8")
    (folder / "env.toml").write_text(_ENV)


def selection(folder: Path, *overrides: str) -> Selection:
    """A LoRA fine-tune of what is in the folder."""
    return Selection("peft/automodel", config="./mine.yaml", overrides=overrides, cwd=folder)


def recorded(folder: Path, name: str, state: RunState, scale: float = 1.0) -> RunRecord:
    """A run as it is found long after: in the registry, with its log."""
    plan = resolve(replace(selection(folder), name=name))
    registry = Registry()
    registry.add(RunRecord.of(plan, forced=False))
    plan.run_dir.mkdir(parents=True)
    word, code = ("exit 0", 0) if state is RunState.SUCCEEDED else ("exit 1", 1)
    record = registry.update(plan.run_id, Status(state, word, "", code, _START, _START + 49))
    lines = ["tunedeck: total_steps=60 world_size=1"]
    for step in range(1, 61):
        loss = 0.4 + 5 * scale * math.exp(-step / 12) + 0.2 * math.sin(step)
        lines.append(
            f"step={step} epoch=0 loss={loss:.4f} grad_norm={1 + loss / 9:.3f} lr={2e-4:.1e} "
            f"tokens_per_s={9000 + 37 * (step % 7)} mem_gib=0.61"
        )
        if step % 20 == 0:
            lines.append(f"step={step} val_loss={loss + 0.1:.4f}")
    if state is RunState.FAILED:
        lines += [
            "Traceback (most recent call last):",
            '  File "train.py", line 7, in <module>',
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        ]
    record.log.write_text("\n".join([*lines, f"tunedeck: exit={code}", ""]))
    (plan.run_dir / "result.json").write_text(json.dumps({}))
    return registry.get(plan.run_id)


async def _home(pilot: Pilot[None], folder: Path) -> None:
    await until(pilot, lambda: "Saved launches" in shown(pilot) and "Nothing" in shown(pilot))


async def _home_with_runs(pilot: Pilot[None], folder: Path) -> None:
    recorded(folder, "first try", RunState.SUCCEEDED)
    recorded(folder, "larger rank", RunState.FAILED, 1.3)
    save_draft(Draft.begin(selection(folder), "config"))
    save_replay(resolve(selection(folder)).to_json(), "tuesday")
    await until(pilot, lambda: all(t in shown(pilot) for t in ("first try", "tuesday", "✎ config")))


async def _stage(pilot: Pilot[None], folder: Path, stage: Stage, *words: str) -> LaunchScreen:
    chosen = selection(folder, "optimizer.lr=5e-4")
    if stage == "review":
        chosen = replace(chosen, name="mine")
    screen = LaunchScreen(Draft.begin(chosen, stage))
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: all(word in shown(pilot) for word in words))
    return screen


async def _step(pilot: Pilot[None], folder: Path) -> None:
    screen = await _stage(pilot, folder, "step", "peft/automodel")
    screen.query_one("#step-search", Input).value = "low-rank adapter"
    await until(pilot, lambda: "sft/automodel" not in shown(pilot))


async def _config(pilot: Pilot[None], folder: Path) -> None:
    screen = await _stage(pilot, folder, "config", "most used", "1 changed")
    fields = screen.query_one("#fields", OptionList)
    fields.highlighted = fields.get_option_index("optimizer.lr")
    await until(pilot, lambda: "command line" in shown(pilot))


async def _environment(pilot: Pilot[None], folder: Path) -> None:
    screen = await _stage(pilot, folder, "environment", "lab", "here")
    profiles = screen.query_one("#profiles", OptionList)
    profiles.highlighted = profiles.get_option_index("lab")
    await until(pilot, lambda: "x fixes" in shown(pilot))


async def _review(pilot: Pilot[None], folder: Path) -> None:
    recorded(folder, "first try", RunState.SUCCEEDED)
    await _stage(pilot, folder, "review", "✓ Ready", "digest")


async def _changes(pilot: Pilot[None], folder: Path) -> None:
    await _review(pilot, folder)
    await pilot.press("p")
    await until(pilot, lambda: "changes (2 of 4" in shown(pilot))


async def _yaml(pilot: Pilot[None], folder: Path) -> None:
    chosen, catalog = selection(folder, "optimizer.lr=5e-4"), load_catalog()
    await pilot.app.push_screen(YamlScreen(form_of(chosen, catalog), chosen, catalog))
    await pilot.press("m")
    await until(pilot, lambda: "lr: 0.0005" in shown(pilot))


async def _data(pilot: Pilot[None], folder: Path) -> None:
    chosen = selection(folder)
    await pilot.app.push_screen(DataScreen(form_of(chosen, load_catalog()).values, chosen))
    await until(pilot, lambda: "row 1" in shown(pilot))


async def _profile(pilot: Pilot[None], folder: Path) -> None:
    await pilot.app.push_screen(ProfileScreen("lab", folder, key="partition"))
    await until(pilot, lambda: "Partition to submit to" in shown(pilot))


async def _env_file(pilot: Pilot[None], folder: Path) -> None:
    await pilot.app.push_screen(EnvFileScreen(folder))
    await until(pilot, lambda: "writes env.slurm.toml" in shown(pilot))


async def _replay(pilot: Pilot[None], folder: Path) -> None:
    save_replay(resolve(selection(folder)).to_json(), "tuesday")
    await pilot.app.push_screen(ReplayScreen("tuesday"))
    await until(pilot, lambda: "Nothing has changed" in shown(pilot))


async def _run(pilot: Pilot[None], folder: Path) -> None:
    record = recorded(folder, "first try", RunState.SUCCEEDED)
    await pilot.app.push_screen(RunScreen(record))
    await until(pilot, lambda: "exit=0" in shown(pilot) and "step 60/60" in shown(pilot))


async def _failed(pilot: Pilot[None], folder: Path) -> None:
    record = recorded(folder, "larger rank", RunState.FAILED)
    await pilot.app.push_screen(RunScreen(record))
    await until(pilot, lambda: "cause:" in shown(pilot) and "step 60/60" in shown(pilot))


async def _charts(pilot: Pilot[None], folder: Path) -> None:
    await _run(pilot, folder)
    await pilot.press("l", "l")
    await until(pilot, lambda: "learning rate" in shown(pilot) and "gradient" in shown(pilot))


async def _compare(pilot: Pilot[None], folder: Path) -> None:
    one = recorded(folder, "first try", RunState.SUCCEEDED)
    other = recorded(folder, "larger rank", RunState.FAILED, 1.3)
    await pilot.app.push_screen(CompareScreen([one, other]))
    await until(pilot, lambda: "1 first try 0." in shown(pilot) and "2 larger" in shown(pilot))


async def _help(pilot: Pilot[None], folder: Path) -> None:
    await _home(pilot, folder)
    await until(pilot, lambda: "palette" in shown(pilot))
    await pilot.press("question_mark")
    await until(pilot, lambda: "Home lists your runs" in shown(pilot))


SCENES: dict[str, Scene] = {
    "home-empty": _home,
    "home": _home_with_runs,
    "help": _help,
    "step": _step,
    "config": _config,
    "yaml": _yaml,
    "data": _data,
    "environment": _environment,
    "profile": _profile,
    "env-file": _env_file,
    "review": _review,
    "changes": _changes,
    "replay": _replay,
    "run": _run,
    "run-failed": _failed,
    "curves": _charts,
    "compare": _compare,
}
"""Name → what brings the wizard there from home."""
