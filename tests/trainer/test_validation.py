from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunedeck.core.charts.metrics import parse_line
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft
from tunedeck.trainer.checkpoints.progress import Progress
from tunedeck.trainer.reporting import validator
from tunedeck.trainer.reporting.evaluate import Validation, evaluate

from .helpers import metric_lines, rows, write_rows

Configure = Callable[..., TrainConfig]
STEPS = {"max_steps": 2, "val_every_steps": 1}


@pytest.fixture
def two_files(tmp_path: Path) -> list[Path]:
    """Validation rows in two files of different size."""
    return [
        write_rows(tmp_path / "short.jsonl", rows(5, seed=1)),
        write_rows(tmp_path / "long words.jsonl", rows(11, seed=2)),
    ]


def validate(
    config: TrainConfig, folder: Path, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, str]]:
    assert sft.main(config, folder) == 0
    return metric_lines(capsys.readouterr().out, "val_loss")


def result(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return values


@pytest.mark.parametrize("attention", [None, "sdpa"])
def test_the_loss_on_each_source_is_that_of_validating_on_it_alone(
    attention: str | None,
    two_files: list[Path],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(path: Any, name: str) -> list[dict[str, str]]:
        table = {"path_or_dataset_id": path}
        model = {"attn_implementation": attention}
        config = configure(model=model, validation_dataset=table, step_scheduler=STEPS)
        return validate(config, tmp_path / name, capsys)

    both = run([{"path": str(file), "weight": 1} for file in two_files], "both")
    alone = [run(str(file), file.stem) for file in two_files]
    assert [values["step"] for values in both] == ["0", "1", "2"]
    for at, values in enumerate(both):
        parts = [float(one[at]["val_loss"]) for one in alone]
        tokens = [int(one[at]["val_tokens"]) for one in alone]
        found = [float(values["val_loss/short"]), float(values["val_loss/long_words"])]
        assert found == pytest.approx(parts, abs=1e-5)
        mean = sum(p * t for p, t in zip(parts, tokens, strict=True)) / sum(tokens)
        assert float(values["val_loss"]) == pytest.approx(mean, abs=1e-5)
        assert int(values["val_tokens"]) == sum(tokens)
    assert not any("/" in key for key in alone[0][0])


def test_its_line_is_read_as_curves_of_their_own() -> None:
    point = parse_line(b"step=3 val_loss=2.5 val_tokens=9 val_loss/long_words=3.25\n")
    assert point is not None and point["val_loss/long_words"] == 3.25


def test_validation_adds_nothing_to_the_loss_on_the_sources_that_are_trained(
    two_files: list[Path],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources = [{"path": str(file), "weight": 1} for file in two_files]
    tables: dict[str, Any] = {"dataset": {"path_or_dataset_id": sources}, "step_scheduler": STEPS}
    assert sft.main(configure(**tables), tmp_path) == 0
    expected = metric_lines(capsys.readouterr().out)
    checked = configure(**tables, validation_dataset={"path_or_dataset_id": sources})
    assert sft.main(checked, tmp_path) == 0
    keys = ("loss", "loss/short", "loss/long_words")
    for found, values in zip(metric_lines(capsys.readouterr().out), expected, strict=True):
        assert [found[key] for key in keys] == [values[key] for key in keys]


def test_a_step_that_memory_ran_out_in_counts_once_for_its_sources(
    two_files: list[Path],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configure(
        dataset={"path_or_dataset_id": [{"path": str(f), "weight": 1} for f in two_files]},
        step_scheduler={"global_batch_size": 8, "local_batch_size": 4, "max_steps": 3},
    )
    assert sft.main(config, tmp_path / "roomy") == 0
    expected = metric_lines(capsys.readouterr().out)
    original, calls = sft.setup_model_and_optimizer, 0

    def fail(_module: Any, _inputs: Any) -> None:
        nonlocal calls
        calls += 1
        # The second micro-batch of the second step: the first one's loss was counted by then.
        if calls == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    def setup(*args: Any, **options: Any) -> Any:
        state = original(*args, **options)
        state.model.model.layers[1].register_forward_pre_hook(fail)
        return state

    monkeypatch.setattr(sft, "setup_model_and_optimizer", setup)
    assert sft.main(config, tmp_path / "tight") == 0
    printed = capsys.readouterr().out
    assert "memory ran out in step 2: micro-batches of 2 rows" in printed
    for key in ("loss", "loss/short", "loss/long_words"):
        found = [float(values[key]) for values in metric_lines(printed)]
        assert found == pytest.approx([float(values[key]) for values in expected], abs=1e-5), key
    whole = [values["tokens"] for values in expected]
    assert [values["tokens"] for values in metric_lines(printed)] == whole


def test_the_best_is_the_lowest_and_a_gain_is_more_than_the_least_that_counts() -> None:
    progress = Progress()
    seen = []
    for loss in (math.nan, 2.0, math.nan, 1.95, math.inf, 3.0, 1.5):
        best = progress.validated(Validation(loss, 1), min_delta=0.1)
        seen.append((best, progress.validations_without_gain))
    assert seen == [
        *((False, 1), (True, 0), (False, 1), (True, 2), (False, 3), (False, 4), (True, 0))
    ]
    resumed = Progress.of(progress.state())
    assert not resumed.validated(Validation(1.6, 1), min_delta=0.1)
    assert (resumed.best_val_loss, resumed.validations_without_gain) == (1.5, 1)


def test_nothing_is_dropped_in_a_validation_and_training_drops_again() -> None:
    model = torch.nn.Dropout(0.5)
    loss_sum: Any = lambda *_: model(torch.ones(100)).sum()  # noqa: E731
    batch: Any = SimpleNamespace(targets=torch.ones(100))
    found = evaluate(
        model, loss_sum, iter([batch]), device=torch.device("cpu"), stopping=lambda: False
    )
    assert found is not None and found.loss == 1.0
    assert model.training


def stopped_in(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the run to end in one of its validations, by a signal; the first has the number 0."""
    original, calls = validator.evaluate, 0

    def taken(*args: Any, **options: Any) -> Validation | None:
        nonlocal calls
        calls += 1
        if calls == number + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **options)

    monkeypatch.setattr(validator, "evaluate", taken)


def test_a_run_that_is_stopped_in_a_validation_takes_it_when_it_goes_on(
    two_files: list[Path],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def config(**checkpoint: Any) -> TrainConfig:
        data = {"path_or_dataset_id": str(two_files[0])}
        sampling = {"prompts": ["1 + 1"], "every_steps": 1, "max_new_tokens": 1}
        tables = {"validation_dataset": data, "step_scheduler": STEPS, "sampling": sampling}
        return configure(**tables, checkpoint=checkpoint)

    assert sft.main(config(), tmp_path / "whole") == 0
    whole = capsys.readouterr().out
    for step in (1, 2):
        folder = tmp_path / f"stopped_in_{step}"
        with monkeypatch.context() as patch:
            stopped_in(step, patch)
            assert sft.main(config(), folder) == 75
        assert sft.main(config(restore_from=str(folder)), folder) == 0
        parted = capsys.readouterr().out
        for key in ("val_loss", "answer"):
            assert metric_lines(parted, key) == metric_lines(whole, key), step
        lowest = result(tmp_path / "whole")["best_val_loss"]
        assert result(folder)["val_loss"] == result(folder)["best_val_loss"] == lowest
        # A run that goes on compares with the loss of the best checkpoint, which knows it.
        best = json.loads((folder / "checkpoints/best/state/training_state.json").read_text())
        assert (best["progress"]["step"], best["progress"]["best_val_loss"]) == (2, lowest)


def test_a_run_that_gave_up_takes_no_further_step_when_it_is_resumed(
    two_files: list[Path],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def config(patience: int, **checkpoint: Any) -> TrainConfig:
        return configure(
            validation_dataset={"path_or_dataset_id": str(two_files[0])},
            step_scheduler={"max_steps": 5, "val_every_steps": 1},
            optimizer={"lr": 1e-9},
            early_stopping={"patience": patience, "min_delta": 0.5},
            checkpoint=checkpoint,
        )

    assert sft.main(config(2), tmp_path) == 0
    said = "the last 2 validations did not improve by more than min_delta=0.5 on the lowest"
    assert said in capsys.readouterr().out
    for patience, steps in ((2, 2), (3, 3)):
        assert sft.main(config(patience, restore_from=str(tmp_path)), tmp_path) == 0
        assert (result(tmp_path)["steps"], result(tmp_path)["ending"]) == (steps, "stopped early")
