from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft, stepping
from tunedeck.trainer.preempt import StopRequest
from tunedeck.trainer.reporting import samples, validator

from .helpers import metric_lines

Configure = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _other_signals() -> Any:
    before = signal.getsignal(signal.SIGUSR2)
    yield
    signal.signal(signal.SIGUSR2, before)


def test_the_signals_are_those_of_the_config(
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = stepping.train_step

    def step(*args: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR2)
        return original(*args, **options)

    monkeypatch.setattr(stepping, "train_step", step)
    config = configure(checkpoint={"preempt_signals": "SIGUSR2"})
    assert sft.main(config, tmp_path) == 75
    assert "stopped by SIGUSR2 after step 0" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGNONSENSE", "15"])
def test_a_signal_that_nothing_can_be_done_about_is_refused(
    name: str, configure: Configure
) -> None:
    with pytest.raises(ValidationError, match="no signal that a process can catch"):
        configure(checkpoint={"preempt_signals": [name]})


@pytest.mark.parametrize("variable", ["TUNEDECK_DEADLINE", "SLURM_JOB_END_TIME"])
def test_time_runs_out_by_the_measured_step_and_save(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setenv(variable, str(now + 100))
    stop = StopRequest()
    assert not stop()
    stop.took(step=10)
    stop.expect(save=80)
    assert stop.exit_code == 75
    assert stop()
    assert stop.reason == "the deadline"
    again = StopRequest()
    again.expect(save=80)
    again.took(step=10, save=20)
    assert not again(), "what was measured counts, not what was expected"
    again.took(save=60)
    assert again()


def test_the_launchers_deadline_comes_before_that_of_slurm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNEDECK_DEADLINE", str(time.time() + 1000))
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1")
    assert not StopRequest()()


def test_a_deadline_that_is_no_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEDECK_DEADLINE", "tomorrow")
    with pytest.raises(UsageError, match="TUNEDECK_DEADLINE is 'tomorrow'"):
        StopRequest()


@pytest.mark.parametrize(
    ("said", "reason", "code"),
    [
        (1, "the deadline", 75),
        (1 + signal.SIGTERM, "SIGTERM", 75),
        (1 + signal.SIGINT, "SIGINT", 130),
    ],
)
def test_what_another_rank_was_told_is_what_all_say(said: int, reason: str, code: int) -> None:
    asked: list[int] = []

    def agree(mine: int) -> int:
        asked.append(mine)
        return max(mine, said)

    stop = StopRequest()
    stop.agree = agree
    assert stop()
    assert stop()
    assert asked == [0], "what is agreed is not asked again"
    assert (stop.reason, stop.exit_code) == (reason, code)


@pytest.mark.parametrize("during", ["validation", "sampling"])
def test_a_signal_is_heard_during_validation_and_sampling(
    during: str,
    configure: Configure,
    chat_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = 0

    def interrupting(original: Any) -> Any:
        def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                os.kill(os.getpid(), signal.SIGUSR1)
            return original(*args, **options)

        return wrapped

    if during == "validation":
        original = validator.evaluate

        def evaluate(model: Any, loss_sum: Any, *args: Any, **options: Any) -> Any:
            return original(model, interrupting(loss_sum), *args, **options)

        monkeypatch.setattr(validator, "evaluate", evaluate)
    else:
        monkeypatch.setattr(samples, "answer", interrupting(samples.answer))
    config = configure(
        validation_dataset={"path_or_dataset_id": str(chat_file)},
        sampling={"prompts": ["1 + 1", "2 + 2", "3 + 3"], "max_new_tokens": 2},
    )
    assert sft.main(config, tmp_path) == 75
    printed = capsys.readouterr().out
    assert calls == 2
    assert metric_lines(printed) == []
    assert "stopped by SIGUSR1 after step 0" in printed
    assert (tmp_path / "checkpoints/step_000000").is_dir()


@pytest.mark.parametrize(("deaf", "ends"), [("fall_deaf()", 0), ("", -signal.SIGUSR1)])
def test_a_wish_to_stop_that_comes_after_the_end_does_not_look_like_a_crash(
    deaf: str, ends: int
) -> None:
    script = f"""
import os, signal, sys
from tunedeck.trainer.preempt import StopRequest, fall_deaf
stop = StopRequest()
class Late:
    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGUSR1):
        kill(me, number)  # as the interpreter shuts down
sys.late = Late()
{deaf}
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == ends
