"""Runs as a launcher starts them: torchrun, its ranks, and what becomes of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ports import held_port
from tunedeck.core.schema import TrainConfig

from ..helpers import losses, metric_lines, wait_until_it_listens

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

LONG = {"global_batch_size": 4, "local_batch_size": 2, "max_steps": 2000, "log_every_steps": 1}
LORA = {"dim": 4, "alpha": 8, "dropout": 0.1}


class Launched:
    """One node's torchrun with its ranks; the log is a file."""

    def __init__(self, config: TrainConfig, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
        self.log, self.exit_file = folder / "log", folder / "exit_code"
        own = {"TUNEDECK_RUN_DIR": folder, "TUNEDECK_EXIT_FILE": self.exit_file}
        trainer = ("-m", "tunedeck.trainer", "sft", "--config", str(file))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tunedeck.trainer.torchrun", *options, *trainer],
                env={**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in own.items()}},
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    def text(self) -> str:
        """All that was printed."""
        return self.log.read_text()

    def ranks(self) -> list[int]:
        """The processes of the ranks, in order."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return sorted(map(int, children.split()))

    def reach(self, step: int) -> None:
        """Wait until a step is logged."""
        until = time.monotonic() + 200
        while not any(int(line["step"]) >= step for line in metric_lines(self.text())):
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < until, self.text()
            time.sleep(0.1)

    def end(self) -> int:
        """Wait for its end; the exit code that the run meant."""
        self.process.wait(200)
        return int(self.exit_file.read_text())


Launch = Callable[..., Launched]


@pytest.fixture
def launch() -> Iterator[Launch]:
    """Start torchrun, and leave nothing behind."""
    started: list[Launched] = []

    def start(*arguments: Any) -> Launched:
        started.append(Launched(*arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(60)


def test_two_nodes_meet_at_the_rendezvous_of_the_environment(
    configure: Callable[..., TrainConfig], launch: Launch, tmp_path: Path
) -> None:
    config = configure(peft=LORA, checkpoint={"checkpoint_dir": str(tmp_path / "shared")})
    meeting = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=7")
    with held_port() as held:
        place = f"--rdzv-endpoint=127.0.0.1:{held.getsockname()[1]}"
        first, second = (
            launch(config, tmp_path / name, *meeting, place) for name in ("first", "second")
        )
        assert (first.process.wait(200), second.process.wait(200)) == (0, 0), first.text()
    texts = sorted((first.text(), second.text()), key=len)
    assert "world_size=2" in texts[1]
    assert len(losses(texts[1])) == 4
    assert losses(texts[0]) == []


def test_a_port_that_something_else_holds_is_said_in_words(
    configure: Callable[..., TrainConfig], launch: Launch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        place = f"--master-port={held.getsockname()[1]}"
        run = launch(configure(), tmp_path, "--nproc-per-node=2", "--master-addr=127.0.0.1", place)
        assert run.process.wait(200) == 1
    assert "tunedeck: error: The nodes of the run did not find each other:" in run.text()
    assert "tunedeck: fix: " in run.text()
    assert "Traceback" not in run.text()


def test_a_signal_to_one_rank_ends_all_with_a_checkpoint_to_resume_from(
    configure: Callable[..., TrainConfig], launch: Launch, tmp_path: Path
) -> None:
    tables = {"peft": LORA, "step_scheduler": LONG}
    options = ("--standalone", "--nproc-per-node=2")
    part = launch(configure(**tables), tmp_path / "part", *options)
    part.reach(3)
    os.kill(part.ranks()[1], signal.SIGUSR1)
    assert part.end() == 75
    assert "Traceback" not in part.text()
    taken = len(losses(part.text()))
    steps = {**LONG, "max_steps": taken + 2}
    checkpoint = {"restore_from": str(tmp_path / "part")}
    rest = launch(
        configure(peft=LORA, step_scheduler=steps, checkpoint=checkpoint),
        tmp_path / "rest",
        *options,
    )
    whole = launch(configure(peft=LORA, step_scheduler=steps), tmp_path / "whole", *options)
    assert (rest.end(), whole.end()) == (0, 0)
    # Dropout goes on where it was, on each rank.
    assert losses(part.text()) + losses(rest.text()) == losses(whole.text())


def test_a_signal_to_one_rank_that_still_loads_asks_for_a_new_start(
    configure: Callable[..., TrainConfig], launch: Launch, tmp_path: Path
) -> None:
    run = launch(configure(), tmp_path / "run", "--standalone", "--nproc-per-node=2")
    until = time.monotonic() + 200
    while len(run.ranks()) < 2:
        assert run.process.poll() is None and time.monotonic() < until, run.text()
        time.sleep(0.02)
    last = run.ranks()[1]
    wait_until_it_listens(last, signal.SIGUSR1)
    os.kill(last, signal.SIGUSR1)
    assert run.end() == 75
    assert "Traceback" not in run.text()
    assert "step=" not in run.text()


def test_a_rank_that_is_killed_ends_the_run_and_no_one_hangs(
    configure: Callable[..., TrainConfig], launch: Launch, tmp_path: Path
) -> None:
    config = configure(step_scheduler=LONG)
    run = launch(config, tmp_path / "run", "--standalone", "--nproc-per-node=2")
    run.reach(2)
    os.kill(run.ranks()[1], signal.SIGKILL)
    assert run.process.wait(200) == 1
    assert "Traceback" not in run.text()
    assert "rank 1 ended first, with signal 9" in run.text()


def test_a_rank_that_hangs_ends_the_run_at_the_limit(
    configure: Callable[..., TrainConfig], launch: Launch, tmp_path: Path
) -> None:
    config = configure(step_scheduler=LONG, dist_env={"timeout_minutes": 0.75})
    run = launch(config, tmp_path / "run", "--standalone", "--nproc-per-node=2")
    run.reach(2)
    hanging = run.ranks()[1]
    os.kill(hanging, signal.SIGSTOP)
    until = time.monotonic() + 200
    while "did not come within dist_env.timeout_minutes" not in run.text():
        assert time.monotonic() < until, run.text()
        time.sleep(0.2)
    os.kill(hanging, signal.SIGCONT)
    assert run.process.wait(200) == 1
    assert "Traceback" not in run.text()


def test_a_mistake_in_the_config_is_said_once(
    configure: Callable[..., TrainConfig], launch: Launch, tmp_path: Path
) -> None:
    config = configure(distributed={"tp_size": 2, "cp_size": 2})
    run = launch(config, tmp_path / "run", "--standalone", "--nproc-per-node=2")
    assert run.end() == 2
    assert run.text().count("2 processes cannot be split") == 1
    assert "Traceback" not in run.text()
