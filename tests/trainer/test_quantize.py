"""The refusals run anywhere; the rest where bitsandbytes is installed, which has a CPU form."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunedeck.core.errors import ExitCode, UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft
from tunedeck.trainer.model import quantize
from tunedeck.trainer.model.quantize import check_quantized
from tunedeck.trainer.setup import validate_and_prepare_config

from .helpers import losses
from .test_sft import interrupt_in_step, result_of, tensors

Configure = Callable[..., TrainConfig]
WANTED: list[dict[str, Any]] = [
    {"peft": {"quantization": "nf4"}},
    {"optimizer": {"name": "adamw8bit"}},
]


@pytest.mark.parametrize("tables", WANTED)
def test_what_needs_a_package_that_is_missing_is_refused_with_its_name(
    tables: dict[str, Any], configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="needs the package bitsandbytes") as caught:
        sft.main(configure(**tables), tmp_path)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "pip install bitsandbytes" in caught.value.fix


def test_states_in_eight_bits_are_refused_on_several_processes(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda _: object())
    config = configure(optimizer={"name": "adamw8bit"})
    with pytest.raises(UsageError, match="cannot be split over processes"):
        check_quantized(config, 2)
    check_quantized(config, 1)
    check_quantized(configure(peft={"quantization": "nf4"}), 2)


def test_magnitudes_of_a_base_in_eight_bits_are_refused_on_a_cpu(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="int8 on a CPU") as caught:
        check_quantized(configure(peft={"quantization": "int8", "use_dora": True}), 1)
    assert "nf4" in caught.value.fix
    check_quantized(configure(peft={"quantization": "nf4", "use_dora": True}), 1)


def test_a_model_without_weights_is_not_quantized(
    configure: Configure, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda _: object())
    model = {"pretrained_model_name_or_path": None, "config": str(llama)}
    config = configure(model=model, peft={"quantization": "nf4"})
    with pytest.raises(UsageError, match="no weights to quantize"):
        validate_and_prepare_config(config, None, 0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_an_adapter_learns_on_a_quantized_base(
    quantization: str,
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("bitsandbytes")
    plan = {"max_steps": 12}
    peft = {"dim": 4, "alpha": 8}
    assert sft.main(configure(peft=peft, step_scheduler=plan), tmp_path) == 0
    plain = [float(loss) for loss in losses(capsys.readouterr().out)]
    config = configure(peft={**peft, "quantization": quantization}, step_scheduler=plan)
    assert sft.main(config, tmp_path) == 0
    found = [float(loss) for loss in losses(capsys.readouterr().out)]
    assert found == pytest.approx(plain, abs=0.1)
    assert found != plain
    assert found[-1] < found[0]
    saved = tensors(Path(result_of(tmp_path)["checkpoint"]))
    assert all("lora_" in name and value.dtype == torch.float32 for name, value in saved.items())


@pytest.mark.filterwarnings("ignore")
def test_an_answer_in_between_changes_nothing_of_the_training(
    configure: Configure,
    tmp_path: Path,
    chat_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("bitsandbytes")
    config = {"peft": {"dim": 4, "alpha": 8, "quantization": "nf4"}}
    found: list[list[str]] = []
    for validation in (None, {"path_or_dataset_id": str(chat_file), "split": "train[:4]"}):
        plan = {"max_steps": 4, "val_every_steps": 1}
        tables = {**config, "step_scheduler": plan, "validation_dataset": validation}
        assert sft.main(configure(**tables), tmp_path / str(len(found))) == 0
        found.append(losses(capsys.readouterr().out))
    assert found[0] == found[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "wanted",
    [
        {"optimizer": {"name": "adamw8bit", "lr": 1e-3}},
        {"peft": {"dim": 32, "alpha": 8, "quantization": "nf4"}},
        {"peft": {"dim": 32, "alpha": 8, "quantization": "int8"}},
    ],
)
def test_what_bitsandbytes_keeps_resumes(
    wanted: dict[str, Any],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("bitsandbytes")
    whole, part = tmp_path / "whole", tmp_path / "part"
    for folder in (whole, part):
        folder.mkdir()
    tables: dict[str, Any] = {
        "optimizer": {"lr": 1e-3},
        "peft": {"dim": 32, "alpha": 8},
        "step_scheduler": {"max_steps": 6},
        "model": {"torch_dtype": "float32"},
        **wanted,
    }
    assert sft.main(configure(**tables), whole) == 0
    uninterrupted = losses(capsys.readouterr().out)
    with monkeypatch.context() as patch:
        interrupt_in_step(4, signal.SIGTERM, patch)
        assert sft.main(configure(**tables), part) == 75
    first = losses(capsys.readouterr().out)
    assert sft.main(configure(**tables, checkpoint={"restore_from": str(part)}), part) == 0
    assert first + losses(capsys.readouterr().out) == uninterrupted
    assert uninterrupted[-1] < uninterrupted[0]
