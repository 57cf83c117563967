from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest
from textual.widgets import Static

from tests.tui.conftest import Launcher, said, shown, until
from tests.tui.scenes import prepare_folder, recorded
from tunedeck.core.backends.base import Handle, LogLine
from tunedeck.core.backends.local.backend import LocalBackend
from tunedeck.core.cli import runs_logs
from tunedeck.core.logs.filtered_reader import FilteredReader
from tunedeck.core.plan import Launch
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState
from tunedeck.tui.app import WizardApp
from tunedeck.tui.facts import outcome_of
from tunedeck.tui.screens import run_feed, run_lines
from tunedeck.tui.screens.ask import Confirm
from tunedeck.tui.screens.home import HomeScreen
from tunedeck.tui.screens.run import RunScreen
from tunedeck.tui.widgets.log_view import LogView

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


async def test_a_run_that_measures_nothing_leaves_its_room_to_the_log(launched: Launcher) -> None:
    merges = launched("print('merged 7 layers', flush=True)", config={"adapter": "a"})
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(RunScreen(merges))
        await until(pilot, lambda: "merged 7 layers" in shown(pilot))
        assert not pilot.app.screen.query_one("#chart").display
    trains = launched("print('loads', flush=True)", config={"step_scheduler": {"max_steps": 4}})
    async with WizardApp().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(RunScreen(trains))
        await until(pilot, lambda: "loads" in shown(pilot))
        assert pilot.app.screen.query_one("#chart").display


def test_a_success_says_what_was_learnt_and_how_to_talk_with_it(working_folder: Path) -> None:
    prepare_folder(working_folder)
    record = recorded(working_folder, "first try", RunState.SUCCEEDED)
    adapter = Path.home() / "runs" / "a" / "step_30"
    left = {"kind": "adapter", "base": "b", "best_checkpoint": str(adapter)}
    (record.run_dir / "result.json").write_text(json.dumps(left))
    with record.log.open("a") as log:
        log.write('sample step=0 prompt="What is 1 + 1?" answer="user What"\n')
        log.write('sample step=30 prompt="What is 1 + 1?" answer=""\n')
    assert outcome_of(record).plain.splitlines() == [
        "asked:  What is 1 + 1?",
        "before: user What",
        "after:  (nothing)",
        "result: ~/runs/a/step_30",
        f"next:   tunedeck runs fetch {record.run_id}",
    ]
    left["best_checkpoint"] = str(working_folder)
    (record.run_dir / "result.json").write_text(json.dumps(left))
    assert outcome_of(record).plain.endswith(f"next:   tunedeck chat {record.run_id}")


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


class _WithNodeLogs(LocalBackend):
    """This machine, as if each node of a run kept a log of its own."""

    def of_node(self, handle: Handle, node: int) -> Handle:
        return replace(handle, data={**handle.data, "node": node})

    async def logs(
        self, handle: Handle, cursor: str | None, *, follow: bool
    ) -> AsyncGenerator[LogLine]:
        for number in range(int(cursor or 0), 3):
            rank = 2 * handle.data["node"] + number % 2
            yield LogLine(f"[rank{rank}]: on node {handle.data['node']}".encode(), str(number + 1))


async def test_the_log_of_another_node_is_brought_and_shown(
    launched: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = launched(_RANKS, launch=Launch("command", "x", nodes=2, nproc_per_node=2))
    for module in (run_lines, run_feed, runs_logs):
        monkeypatch.setattr(module, "backend_of", lambda _record: _WithNodeLogs({}))
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = RunScreen(record)
        await app.push_screen(screen)
        await until(pilot, lambda: "line 199" in shown(pilot))
        await pilot.press("t", *"node 1, all", "enter")
        await until(pilot, lambda: "[rank3]: on node 1" in shown(pilot))
        assert "line 199" not in shown(pilot)
        assert screen.command_line.endswith(f"{record.run_id} --node 1")
        await pilot.press("t", *"rank 3", "enter")  # which runs on the second node
        await until(pilot, lambda: "--node 1 --rank 3" in screen.command_line)
        await until(pilot, lambda: "[rank2]" not in shown(pilot) and "[rank3]" in shown(pilot))
        await pilot.press("t", *"rank 0", "enter")
        await until(pilot, lambda: "line 198" in shown(pilot))
        assert "--node" not in screen.command_line


_TROUBLED = """
print("[rank0]: fine", flush=True)
print("[rank1]: WARNING: low on memory", flush=True)
print("[rank1]: ValueError: first", flush=True)
print("filler\\n" * 80, flush=True)
print("[rank0]: RuntimeError: second", flush=True)
print("wide " * 40 + "rightmost", flush=True)
"""


async def test_errors_are_jumped_to_lines_wrapped_and_copied(launched: Launcher) -> None:
    record = launched(_TROUBLED, launch=Launch("command", "x", nproc_per_node=2))
    app = WizardApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await app.push_screen(RunScreen(record))
        await until(pilot, lambda: "RuntimeError: second" in shown(pilot))
        log = app.screen.query_one(LogView)
        await pilot.press("E")
        await until(pilot, lambda: log._marked is not None)  # the next search begins there
        await pilot.press("E")
        await until(pilot, lambda: "ValueError: first" in shown(pilot))
        await pilot.press("e")
        await until(pilot, lambda: "RuntimeError: second" in shown(pilot))
        await pilot.press("end", "w")
        await until(pilot, lambda: "rightmost" in shown(pilot))
        await pilot.press("c")
        await until(pilot, lambda: "Copied" in said(pilot))
        assert "rightmost" in app.clipboard
        await pilot.press("t", *"warnings", "enter")
        await until(pilot, lambda: "low on memory" in shown(pilot) and "fine" not in shown(pilot))
        await pilot.press("slash", *"FIRST", "enter")
        await until(pilot, lambda: log._marked == 1)


_WORKER = """
import torch.distributed as dist
dist.init_process_group("gloo")
print(f"hello from rank {dist.get_rank()}", flush=True)
dist.barrier()
if dist.get_rank() == 1:
    raise ValueError("boom on purpose")
dist.destroy_process_group()
"""
_TORCHRUN = """
import os, sys
words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "worker.py"]
os.execv(sys.executable, [sys.executable, *words])
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_ranks_of_two_real_processes_are_told_apart(
    launched: Launcher, working_folder: Path
) -> None:
    worker = working_folder / "worker.py"
    worker.write_text(_WORKER)
    script = _TORCHRUN.replace('"worker.py"', repr(str(worker)))
    record = launched(script, launch=Launch("command", "x", nproc_per_node=2))
    app = WizardApp()
    async with app.run_test(size=(120, 36)) as pilot:
        screen = RunScreen(record)
        await app.push_screen(screen)
        await until(pilot, lambda: "✗ failed" in shown(pilot), 200)
        log = screen.query_one(LogView)

        def narrowed_to(rank: int) -> bool:
            text = shown(pilot)
            return (
                f"--rank {rank}" in screen.command_line
                and isinstance(log.reader, FilteredReader)
                and f"hello from rank {1 - rank}" not in text
                and ("boom on purpose" in text) == (rank == 1)
            )

        await pilot.press("t", *"rank 1", "enter")
        await until(pilot, lambda: narrowed_to(1))
        await pilot.press("t", *"rank 0", "enter")
        await until(pilot, lambda: narrowed_to(0))


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
