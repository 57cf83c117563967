from __future__ import annotations

import contextlib
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
from torch.distributed import run
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft, stepping, torchrun
from tunedeck.trainer.preempt import AskedToEnd, StopRequest
from tunedeck.trainer.reporting import samples, validator

from .helpers import metric_lines, wait_until_it_listens

Configure = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _other_signals() -> Any:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


def test_a_later_deadline_is_noticed_as_the_first_one_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setenv("TUNEDECK_DEADLINE", str(now + 10))
    monkeypatch.setenv("TUNEDECK_DEADLINE_FILE", str(tmp_path / "deadline"))
    stop = StopRequest()
    stop.took(step=10)
    (tmp_path / "deadline").write_text(f"{now + 1000:.0f}\n")
    assert not stop()
    now += 990
    assert stop()


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


def test_others_of_the_signals_do_again_what_they_did_before() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    stop = StopRequest(["SIGUSR2"])
    stop.listen(["SIGTERM"])
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_IGN
    stop.training = True
    signal.raise_signal(signal.SIGTERM)
    assert stop()


def test_a_second_ctrl_c_does_not_wait_for_the_save() -> None:
    stop = StopRequest()
    stop.training = True
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(AskedToEnd) as caught:
        signal.raise_signal(signal.SIGINT)
    assert caught.value.code == 130
    assert "the last checkpoint is what is left" in caught.value.words


def test_a_wish_to_stop_that_a_library_swallowed_ends_the_first_step(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = StopRequest()
    with contextlib.suppress(SystemExit):
        signal.raise_signal(signal.SIGUSR1)
    assert sft.main(configure(), tmp_path, stop=stop) == 75
    assert "stopped by SIGUSR1 after step 0" in capsys.readouterr().out


def test_a_signal_is_heard_before_anything_is_loaded(tmp_path: Path) -> None:
    # No one writes the config: the process waits for it, with torch not imported yet.
    os.mkfifo(tmp_path / "config.yaml")
    with subprocess.Popen(
        [sys.executable, "-m", "tunedeck.trainer", "sft", "--config", "config.yaml"],
        env={**os.environ, "TUNEDECK_EXIT_FILE": "exit"},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_until_it_listens(process.pid, signal.SIGUSR1)
        process.send_signal(signal.SIGUSR1)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert (tmp_path / "exit").read_text() == "75\n"
    assert said == "tunedeck: error: asked to end before there was anything to save\n"


def test_the_launcher_of_ranks_ends_as_they_would_while_it_loads_torch() -> None:
    script = """
import os, signal, sys
class Told:
    def find_spec(name, *_):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Told)
from tunedeck.trainer.torchrun import main
main([])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (75, b"")


@pytest.mark.parametrize(
    ("ended", "told", "first", "code"),
    [
        # Rank: exit code and second of its end; what a rank has told; what the run then means.
        ({0: (-15, 1), 1: (2, 1)}, 2, "rank 1 ended first, with 2", 2),
        ({0: (75, 1), 1: (-9, 1)}, 75, "rank 0 ended first, with 75", 75),
        ({0: (75, 2), 1: (-9, 1)}, 75, "rank 1 ended first, with signal 9", 137),
        ({0: (1, 2), 1: (-9, 1)}, 1, "rank 1 ended first, with signal 9", 1),
        ({0: (-15, 1), 1: (-10, 1)}, None, "rank 1 ended first, with signal 10", 75),
        ({0: (-15, 1), 1: (-15, 1)}, None, "rank 0 ended first, with signal 15", 75),
    ],
)
def test_the_launcher_of_ranks_judges_by_the_one_that_ended_first(
    ended: dict[int, tuple[int, int]],
    told: int | None,
    first: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_config: Any) -> None:
        failures = {rank: ProcessFailure(rank, 0, end, "none") for rank, (end, _) in ended.items()}
        for rank, (_, second) in ended.items():
            failures[rank].timestamp = second
        if told is not None:
            (tmp_path / "exit").write_text(f"{told}\n")
        raise ChildFailedError("trainer", failures)

    monkeypatch.setattr(run, "run", fail)
    monkeypatch.setenv("TUNEDECK_EXIT_FILE", str(tmp_path / "exit"))
    assert torchrun.main(["train.py"]) == 1
    assert first in capsys.readouterr().err
    assert int((tmp_path / "exit").read_text()) == code
