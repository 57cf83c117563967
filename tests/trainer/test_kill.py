"""A run that is killed over and over, at points that are left to chance."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft
from tunedeck.trainer.checkpoints.checksums import damage, read_sums
from tunedeck.trainer.reporting.ledger import read_ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Configure = Callable[..., TrainConfig]
KILLS, STEPS = 20, 100
LIMIT = 120.0


def train(config: TrainConfig, folder: Path) -> None:
    """What is killed."""
    import torch

    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        os._exit(sft.main(config, folder))


def whole_checkpoints(folder: Path) -> list[str]:
    """The published checkpoints, each of which must be whole."""
    found = [path for path in folder.glob("step_*") if path.suffix == ""]
    for path in found:
        assert damage(path, read_sums(path)) is None
    return sorted(path.name for path in found)


@pytest.mark.parametrize("background", [False, True])
def test_twenty_kills_lose_no_published_checkpoint_and_change_nothing(
    background: bool, configure: Configure, tmp_path: Path
) -> None:
    # Preloading trainer and torch once makes a life of the run short.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tunedeck.trainer.sft", "tunedeck.trainer.reporting.bar"])
    draw = random.Random(7)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    checkpoints = killed / "checkpoints"
    steps = {"max_steps": STEPS, "ckpt_every_steps": 1}
    lora = {"dim": 4, "alpha": 8, "dropout": 0.1}

    def start(folder: Path, **settings: Any) -> Any:
        settings |= {"async_save": background, "keep_last": 2}
        config = configure(peft=lora, step_scheduler=steps, checkpoint=settings)
        process = context.Process(target=train, args=(config, folder))
        process.start()
        return process

    reference = start(whole)
    reference.join(LIMIT)
    assert reference.exitcode == 0

    newest, in_a_save = "", 0
    for life in range(KILLS):
        resume = {"restore_from": str(killed)} if newest else {}
        process = start(killed, **resume)
        before = whole_checkpoints(checkpoints)
        deadline = time.monotonic() + LIMIT
        # Not before it has done something new; then at any point, of a save or between two.
        while whole_checkpoints_names(checkpoints) == before and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.002)
        if life % 2:
            while not list(checkpoints.glob("*.in_progress")) and process.is_alive():
                assert time.monotonic() < deadline
        if life % 4 != 3:  # by which a save may be over
            time.sleep(draw.random() * 0.03)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(LIMIT)
        assert process.exitcode == -signal.SIGKILL, "the run came to its end before it was killed"
        in_a_save += bool(list(checkpoints.glob("*.in_progress")))
        there = whole_checkpoints(checkpoints)
        latest = (checkpoints / "latest").resolve().name
        assert latest in there
        assert latest >= newest
        newest = latest
    assert in_a_save >= 3

    last = start(killed, restore_from=str(killed))
    last.join(LIMIT)
    assert last.exitcode == 0
    ours, theirs = read_ledger(killed), read_ledger(whole)
    assert [entry.step for entry in ours] == list(range(1, STEPS + 1))
    assert [(e.step, e.batch, e.loss, e.norm) for e in ours] == [
        (e.step, e.batch, e.loss, e.norm) for e in theirs
    ]
    one, other = (
        load_file(folder / "checkpoints" / "latest" / "adapter_model.safetensors")
        for folder in (whole, killed)
    )
    assert all((one[name] == other[name]).all() for name in one)


def whole_checkpoints_names(folder: Path) -> list[str]:
    """The names alone, which does not disturb the run."""
    return sorted(path.name for path in folder.glob("step_*") if path.suffix == "")
