from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import loop, sft, stepping
from tunedeck.trainer.model.fingerprint import base_digest
from tunedeck.trainer.update.step import StepResult

from .helpers import losses, metric_lines, rows, write_rows

Configure = Callable[..., TrainConfig]
LORA = {"dim": 4, "alpha": 8, "dropout": 0.1}


def result_of(run_dir: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return result


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def same_bits(one: Path, other: Path) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def interrupt_in_step(number: int, kind: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal while it computes a step."""
    original = stepping.train_step
    taken = 0

    def step(*args: Any, **options: Any) -> StepResult | None:
        nonlocal taken
        taken += 1
        if taken == number:
            os.kill(os.getpid(), kind)
        return original(*args, **options)

    monkeypatch.setattr(stepping, "train_step", step)


def test_an_adapter_run_learns_and_says_so(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str], chat_file: Path
) -> None:
    config = configure(
        peft=LORA,
        validation_dataset={"path_or_dataset_id": str(chat_file), "split": "train[:6]"},
        step_scheduler={"max_steps": 10, "val_every_steps": 5},
        sampling={"prompts": ["1 + 2", 'say "x"'], "max_new_tokens": 3, "every_steps": 5},
    )
    assert sft.main(config, tmp_path) == 0
    printed = capsys.readouterr().out
    lines = metric_lines(printed)
    assert [values["step"] for values in lines] == [str(step) for step in range(1, 11)]
    assert list(lines[0]) == [
        *("step", "epoch", "loss", "grad_norm", "lr", "tokens"),
        *("tokens_per_s", "supervised_tokens_per_s", "padding", "mem_gib"),
    ]
    assert [values["epoch"] for values in lines] == ["0"] * 6 + ["1"] * 4
    checks = metric_lines(printed, "val_loss")
    assert [values["step"] for values in checks] == ["0", "5", "10"]
    assert checks[0]["val_tokens"] == checks[2]["val_tokens"]
    assert float(checks[2]["val_loss"]) < float(checks[0]["val_loss"])
    answered = metric_lines(printed, "prompt")
    assert [values["step"] for values in answered] == ["0", "0", "5", "5", "10", "10"]
    assert "total_steps=10 world_size=1 model_params=" in printed
    result = result_of(tmp_path)
    assert result["kind"] == "adapter"
    assert result["steps"] == 10
    assert result["first_val_loss"] == pytest.approx(float(checks[0]["val_loss"]), rel=1e-6)
    assert result["val_loss"] == pytest.approx(float(checks[2]["val_loss"]), rel=1e-6)
    assert Path(result["checkpoint"]).name == "step_000010"
    assert f"the adapter is in {result['checkpoint']}" in printed


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"use_rslora": True, "dim": 8},
        {"use_dora": True},
        {"target_modules": ["*_proj"], "exclude_modules": ["down_proj", "layers.1.*"]},
        {"target_modules": "q_proj", "modules_to_save": ["lm_head"]},
    ],
)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_a_saved_adapter_gives_the_live_logits(
    variant: dict[str, Any],
    configure: Configure,
    tmp_path: Path,
    llama: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live: dict[str, torch.Tensor] = {}
    ids = torch.tensor([[5, 9, 30, 31, 2]])

    class Spy(loop.TrainingLoop):
        def run(self) -> loop.Ending:
            ending = super().run()
            with torch.no_grad():
                live["logits"] = self._model.eval()(input_ids=ids).logits
            return ending

    monkeypatch.setattr(sft, "TrainingLoop", Spy)
    assert sft.main(configure(peft={**LORA, **variant}), tmp_path) == 0
    folder = Path(result_of(tmp_path)["checkpoint"])
    base = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    before = base(input_ids=ids).logits.detach()
    saved = peft.PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(saved(input_ids=ids).logits, live["logits"])
    assert not torch.allclose(before, live["logits"])
    record = json.loads((folder / "base.json").read_text())
    assert record == {"base": str(llama), "digest": base_digest(llama)}
    AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma2"])
def test_a_fully_trained_model_loads_anywhere(
    kind: str, models_of: Callable[[str], Path], configure: Configure, tmp_path: Path
) -> None:
    config = configure(
        model={"pretrained_model_name_or_path": str(models_of(kind))},
        step_scheduler={"max_steps": 2},
    )
    assert sft.main(config, tmp_path) == 0
    result = result_of(tmp_path)
    assert result["kind"] == "model"
    trained = AutoModelForCausalLM.from_pretrained(result["checkpoint"])
    base = AutoModelForCausalLM.from_pretrained(models_of(kind))
    pairs = zip(trained.parameters(), base.parameters(), strict=True)
    assert all(not torch.equal(one, other) for one, other in pairs)


def test_a_model_is_built_from_a_config_and_trained(
    configure: Configure, tmp_path: Path, llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {**json.loads((llama / "config.json").read_text()), "num_hidden_layers": 1}
    model = {"pretrained_model_name_or_path": None, "config": sizes}
    config = configure(model=model, tokenizer={"name": str(llama)})
    assert sft.main(config, tmp_path) == 0
    trained = AutoModelForCausalLM.from_pretrained(result_of(tmp_path)["checkpoint"])
    assert trained.config.num_hidden_layers == 1


@pytest.mark.parametrize("peft_table", [None, LORA])
def test_a_resumed_run_equals_an_uninterrupted_one(
    peft_table: dict[str, Any] | None,
    configure: Configure,
    tmp_path: Path,
    chat_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables: dict[str, Any] = {
        "peft": peft_table,
        "validation_dataset": {"path_or_dataset_id": str(chat_file), "split": "train[:3]"},
        "lr_scheduler": {"lr_decay_style": "cosine", "lr_warmup_steps": 2},
    }
    steps = {"max_steps": 9, "ckpt_every_steps": 4, "val_every_steps": 3}
    keep = {"keep_last": None}
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    for folder in (whole, rest):
        folder.mkdir()
    sft.main(configure(**tables, step_scheduler=steps, checkpoint=keep), whole)
    uninterrupted = losses(capsys.readouterr().out)
    restored = {"restore_from": str(whole / "checkpoints" / "step_000004")}
    sft.main(configure(**tables, step_scheduler=steps, checkpoint=restored), rest)
    printed = capsys.readouterr().out
    assert "resumed from" in printed
    assert losses(printed) == uninterrupted[4:]
    assert same_bits(rest / "checkpoints/latest", whole / "checkpoints/latest")
    assert result_of(rest)["first_val_loss"] == result_of(whole)["first_val_loss"]


@pytest.mark.parametrize(
    ("kind", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_saves_what_was_done_and_the_rest_follows_exactly(
    kind: signal.Signals,
    code: int,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    for folder in (whole, part):
        folder.mkdir()
    assert sft.main(configure(peft=LORA), whole) == 0
    uninterrupted = losses(capsys.readouterr().out)
    with monkeypatch.context() as patch:
        interrupt_in_step(3, kind, patch)
        assert sft.main(configure(peft=LORA), part) == code
    first = capsys.readouterr().out
    assert f"stopped by {kind.name} after step 2" in first
    assert result_of(part)["ending"] == "stopped"
    resumed = configure(peft=LORA, checkpoint={"restore_from": str(part)})
    assert sft.main(resumed, part) == 0
    assert losses(first) + losses(capsys.readouterr().out) == uninterrupted
    assert same_bits(part / "checkpoints/latest", whole / "checkpoints/latest")


def test_a_deadline_is_met_by_saving_before_it(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEDECK_DEADLINE", "1")
    assert sft.main(configure(), tmp_path) == 75
    assert Path(result_of(tmp_path)["checkpoint"]).name == "step_000000"


@pytest.mark.parametrize("micro", [1, 2, 4, 8])
def test_micro_batches_do_not_change_a_step(
    micro: int, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = configure(step_scheduler={"global_batch_size": 8, "local_batch_size": 8})
    sft.main(whole, tmp_path)
    expected = [float(loss) for loss in losses(capsys.readouterr().out)]
    sft.main(
        configure(step_scheduler={"global_batch_size": 8, "local_batch_size": micro}), tmp_path
    )
    found = [float(loss) for loss in losses(capsys.readouterr().out)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_workers_that_collate_ahead_do_not_change_a_step(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft.main(configure(peft=LORA), tmp_path)
    expected = losses(capsys.readouterr().out)
    sft.main(configure(peft=LORA, dataloader={"num_workers": 2}), tmp_path)
    assert losses(capsys.readouterr().out) == expected


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_recomputed_activations_do_not_change_a_step(
    dropout: float,
    kind: str,
    models_of: Callable[[str], Path],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = {"pretrained_model_name_or_path": str(models_of(kind))}
    # Where nothing is recomputed, the last block draws for fewer tokens.
    scopes = (True, "selective") if dropout else (False, True, "selective")
    found = []
    for scope in scopes:
        tables: dict[str, Any] = {"distributed": {"activation_checkpointing": scope}}
        sft.main(configure(model=model, peft={**LORA, "dropout": dropout}, **tables), tmp_path)
        found.append(losses(capsys.readouterr().out))
    assert all(one == found[0] for one in found)


def test_the_last_step_takes_the_rows_that_are_left(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {"global_batch_size": 10, "local_batch_size": 5, "max_steps": None, "num_epochs": 1}
    sft.main(configure(step_scheduler=plan), tmp_path)
    tokens = [int(values["tokens"]) for values in metric_lines(capsys.readouterr().out)]
    assert len(tokens) == 3
    assert tokens[2] < tokens[0]


def test_a_run_ends_when_validation_no_longer_improves(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_rows(tmp_path / "other.jsonl", rows(4, seed=9))
    config = configure(
        optimizer={"lr": 0.3, "max_grad_norm": None},
        validation_dataset={"path_or_dataset_id": str(other)},
        step_scheduler={"max_steps": 50, "val_every_steps": 1},
        early_stopping={"patience": 2},
    )
    assert sft.main(config, tmp_path) == 0
    result = result_of(tmp_path)
    assert result["ending"] == "stopped early"
    assert result["steps"] < 50
    printed = capsys.readouterr().out
    assert f"stopped early after step {result['steps']}: the last 2 validations did not" in printed
    checks = [v for v in metric_lines(printed, "val_loss") if "val_tokens" in v]
    trained = [float(values["val_loss"]) for values in checks[1:]]
    best = trained.index(min(trained)) + 1
    if min(trained) < float(checks[0]["val_loss"]):
        assert Path(result["best_checkpoint"]).name == f"step_{best:06d}"
    assert result["best_val_loss"] <= result["val_loss"]


def test_tracking_online_without_a_key_is_refused_before_anything_is_loaded(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    config = configure(
        wandb={"mode": "online", "project": "p"},
        model={"pretrained_model_name_or_path": str(tmp_path / "missing")},
    )
    with pytest.raises(UsageError, match="no API key"):
        sft.main(config, tmp_path)


def test_no_checkpoint_is_written_where_none_is_wanted(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft.main(configure(checkpoint={"enabled": False}), tmp_path) == 0
    assert "the model was not saved" in capsys.readouterr().out
    assert not (tmp_path / "checkpoints").exists()
    assert result_of(tmp_path)["checkpoint"] is None
