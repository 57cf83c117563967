from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import __main__ as trainer
from tunedeck.trainer import failure
from tunedeck.trainer.__main__ import main

from .helpers import metric_lines

Configure = Callable[..., TrainConfig]


@pytest.fixture
def written(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write the resolved config of a run into its folder."""
    monkeypatch.setenv("TUNEDECK_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("TUNEDECK_EXIT_FILE", str(tmp_path / "exit"))

    def write(**tables: Any) -> Path:
        file = tmp_path / "resolved.yaml"
        file.write_text(yaml.safe_dump(json.loads(configure(**tables).model_dump_json())))
        return file

    return write


def test_a_recipe_trains_from_its_resolved_config(
    written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", "--config", str(written(peft="lora"))]) == 0
    assert len(metric_lines(capsys.readouterr().out)) == 4
    assert (tmp_path / "exit").read_text() == "0\n"
    assert (tmp_path / "checkpoints/latest/adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"model": {"pretrained_model_name_or_path": "/missing"}}, "'/missing' cannot be loaded"),
        ({"dataset": {"path_or_dataset_id": "missing.jsonl"}}, "missing.jsonl"),
        ({"checkpoint": {"restore_from": "nowhere"}}, "checkpoint.restore_from"),
        ({"tokenizer": {"chat_template": "{% if %}"}}, "chat template has a syntax error"),
        ({"peft": {"target_modules": ["nothing"]}}, "'nothing'"),
    ],
)
def test_a_mistake_is_said_in_words_and_ends_with_2(
    tables: dict[str, Any],
    said: str,
    written: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sft", "--config", str(written(**tables))]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("tunedeck: error: ")
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert (tmp_path / "exit").read_text() == "2\n"


@pytest.mark.parametrize(
    ("recipe", "content", "said"),
    [
        ("sfft", "{}", "Did you mean 'sft'?"),
        ("sft", "model: [", "cannot be read"),
        ("sft", "{}", "model"),
        ("sft", "- 1", "mapping"),
    ],
)
def test_a_config_that_is_none_is_refused(
    recipe: str, content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    assert main([recipe, "--config", str(file)]) == 2
    assert said in capsys.readouterr().err


def test_a_config_that_is_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sft", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "There is no such config" in capsys.readouterr().err


def test_a_rank_that_was_left_by_another_does_not_say_how_the_run_ended(
    written: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lose(*_: Any) -> int:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")

    monkeypatch.setattr(trainer, "_run", lose)
    monkeypatch.setattr(failure, "_RANK", 0)
    assert main(["sft", "--config", str(written())]) == 1
    assert "another process of the run ended" in capsys.readouterr().err
    assert not (tmp_path / "exit").exists()


@pytest.mark.parametrize(
    ("first", "said"),
    [("found the same", False), ("was lost", True), ("waits", True)],
)
def test_a_mistake_is_left_to_the_first_of_a_machine_if_that_finds_it_too(
    first: str,
    said: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if first == "found the same":
            (tmp_path / "exit").write_text("2\n")
        if first != "waits":
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setenv("TUNEDECK_EXIT_FILE", str(tmp_path / "exit"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(failure, "_RANK", 1)
    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["sft", "--config", str(tmp_path / "none.yaml")]) == 2
    assert len(waited) == 1
    assert ("There is no such config" in capsys.readouterr().err) is said
    assert (tmp_path / "exit").read_text() == "2\n"


def test_a_full_disk_is_said_with_what_to_do(
    written: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/run/result.json")

    monkeypatch.setattr(trainer, "_run", fill)
    assert main(["sft", "--config", str(written())]) == 1
    said, fix = capsys.readouterr().err.splitlines()
    assert said == "tunedeck: error: No space left on device: /data/run/result.json"
    assert fix.startswith("tunedeck: fix: Make room there")


@pytest.mark.slow
def test_a_real_signal_ends_a_real_run_with_75_and_it_goes_on_from_there(
    written: Any, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tunedeck.trainer", "sft", "--config"]
    steps = {"max_steps": 2000, "global_batch_size": 8}
    with subprocess.Popen(
        [*command, str(written(step_scheduler=steps))], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step=5 "):
                process.send_signal(signal.SIGUSR1)
                break
        rest = process.stdout.read()
        assert process.wait(timeout=60) == 75
    assert "stopped by SIGUSR1 after step" in rest
    assert (tmp_path / "exit").read_text() == "75\n"
    done = json.loads((tmp_path / "result.json").read_text())["steps"]
    steps["max_steps"] = done + 2
    resumed = written(step_scheduler=steps, checkpoint={"restore_from": str(tmp_path)})
    finished = subprocess.run(
        [*command, str(resumed)], capture_output=True, text=True, timeout=100, check=True
    )
    assert [v["step"] for v in metric_lines(finished.stdout)] == [str(done + 1), str(done + 2)]
    assert "Failed to load" not in finished.stderr  # libraries that the run has no use for


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_checkpoint_to_go_on_from(
    written: Any, tmp_path: Path
) -> None:
    steps = {"max_steps": 10_000, "ckpt_every_steps": 1}
    command = [sys.executable, "-m", "tunedeck.trainer", "sft", "--config"]
    for round_ in range(3):
        restore = {"restore_from": str(tmp_path)} if round_ else {}
        config = written(step_scheduler=steps, checkpoint=restore, peft="lora")
        with subprocess.Popen(
            [*command, str(config)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("tunedeck: saved"):
                    time.sleep(0.05 + 0.037 * round_)
                    process.kill()
                    break
    restore = {"restore_from": str(tmp_path)}
    assert main(["sft", "--config", str(written(checkpoint=restore, peft="lora"))]) == 0
