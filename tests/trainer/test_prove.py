from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tunedeck.core.errors import Place, UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer.__main__ import main
from tunedeck.trainer.data import batches
from tunedeck.trainer.merging import updates
from tunedeck.trainer.prove import checks
from tunedeck.trainer.prove.check import Check, Delta, row
from tunedeck.trainer.prove.checks import CLAIMS, Proof
from tunedeck.trainer.prove.cut import changed, cut
from tunedeck.trainer.prove.runs import run_on_ranks
from tunedeck.trainer.update import loss

from .helpers import rows, write_rows

Configure = Callable[..., TrainConfig]
LORA = {"dim": 4, "alpha": 8, "dropout": 0.3}

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def proof(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Try the claims over a config, without those of several processes."""
    monkeypatch.setattr(checks, "run_on_ranks", lambda *_a, **_o: pytest.skip("not asked for"))

    def prove(claims: set[str], **tables: Any) -> dict[str, Check]:
        config = configure(**tables)
        found = cut(config, tmp_path)
        dropout = config.peft.dropout if config.peft is not None else 0.0
        proof = Proof(found.config, dropout, tmp_path)
        attempt = proof._try
        monkeypatch.setattr(
            proof,
            "_try",
            lambda claim, work: attempt(claim, work) if claim in claims else Check(claim),
        )
        return {check.claim: check for check in proof.checks() if check.claim in claims}

    return prove


HERE = set(CLAIMS) - {"2 ranks = 1"}


@pytest.mark.parametrize("peft", [None, LORA])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_what_is_right_is_proven(
    peft: Any, kind: str, proof: Any, models_of: Callable[[str], Path]
) -> None:
    model = {"pretrained_model_name_or_path": str(models_of(kind))}
    found = proof(HERE, peft=peft, model=model)
    assert found.keys() == HERE
    wrong = {claim: check for claim, check in found.items() if check.ok is False}
    assert not wrong
    assert [claim for claim, check in found.items() if check.ok is None] == (
        ["merged = adapter"] if peft is None else []
    )


def test_documents_that_see_each_other_are_found(
    proof: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "document_arguments", lambda *_: {})
    (check,) = proof({"packed = unpacked"}).values()
    assert check.ok is False
    assert check.deltas[0].value > 10 * check.deltas[0].limit


def test_a_loss_that_depends_on_the_micro_batch_is_found(
    proof: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loss.SupervisedLoss.__call__

    def mean_of_means(self: Any, batch: batches.Batch, *rest: Any) -> torch.Tensor:
        return original(self, batch, *rest) * (1 + 0.01 * len(batch.rows))

    monkeypatch.setattr(loss.SupervisedLoss, "__call__", mean_of_means)
    (check,) = proof({"accumulation = big batch"}).values()
    assert check.ok is False


def test_a_checkpoint_that_is_not_what_was_trained_is_found(
    proof: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = checks.Proof._saved

    def tampered(self: Any) -> Any:
        file = tmp_path / "plain/checkpoints/latest/adapter_model.safetensors"
        weights = load_file(file)
        name = min(name for name in weights if "lora_B" in name)
        save_file({**weights, name: weights[name] * 3}, file, metadata={"format": "pt"})
        return original(self)

    monkeypatch.setitem(checks.CLAIMS, "saved = live", tampered)
    (check,) = proof({"saved = live"}, peft=LORA, optimizer={"lr": 1e-7}).values()
    assert check.ok is False


def test_a_merge_that_scales_otherwise_is_found(
    proof: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = updates.Update.apply

    def twice(self: Any, weight: torch.Tensor) -> torch.Tensor:
        return original(replace(self, scaling=2 * self.scaling), weight)

    monkeypatch.setattr(updates.Update, "apply", twice)
    (check,) = proof({"merged = adapter"}, peft=LORA, optimizer={"lr": 1e-7}).values()
    assert check.ok is False


@pytest.mark.slow
def test_ranks_that_train_on_other_rows_are_found(
    proof: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shuffled(config: TrainConfig, *rest: Any, **options: Any) -> Any:
        return run_on_ranks(changed(config, {"rng": {"seed": 99}}), *rest, **options)

    monkeypatch.setattr(checks, "run_on_ranks", shuffled)
    (check,) = proof({"2 ranks = 1"}).values()
    assert (check.ok, check.failed) == (False, "other rows from step 1 on")


def test_a_resume_that_draws_other_numbers_is_found(
    proof: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedeck.trainer.checkpoints.restoring.set_random_state", lambda *_a: None)
    (check,) = proof({"resume = uninterrupted"}, peft=LORA).values()
    assert check.ok is False


def test_the_model_is_cut_in_depth_alone(configure: Configure, tmp_path: Path, llama: Path) -> None:
    deep = {**json.loads((llama / "config.json").read_text()), "num_hidden_layers": 6}
    model = {"pretrained_model_name_or_path": None, "config": deep}
    found = cut(configure(model=model, tokenizer={"name": str(llama)}), tmp_path)
    assert found.layers == (2, 6)
    kept = json.loads((tmp_path / "model/config.json").read_text())
    assert {key for key in deep if kept.get(key) != deep[key]} <= {
        *("num_hidden_layers", "layer_types", "dtype", "transformers_version", "architectures")
    }
    assert kept["num_hidden_layers"] == 2
    assert found.rows == 16


def test_rows_are_taken_whose_answers_fit_and_a_bad_one_is_named_where_it_stands(
    configure: Configure, tmp_path: Path
) -> None:
    content = rows(40)
    for one in content:
        one["messages"][0]["content"] *= 20
    file = write_rows(tmp_path / "long.jsonl", content)
    config = configure(dataset={"path_or_dataset_id": str(file), "seq_length": 4096})
    found = cut(config, tmp_path)
    assert found.rows == 16
    length = found.config.dataset.seq_length
    assert length is not None and 256 < length < 1024
    content[3]["messages"].pop()
    write_rows(file, content)
    with pytest.raises(UsageError, match="No assistant turn") as caught:
        cut(config, tmp_path)
    assert caught.value.place == Place(str(file), 4)


def test_a_model_that_is_too_large_even_so_is_refused(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedeck.trainer.prove.cut.memory_bytes", lambda: 1 << 16)
    with pytest.raises(UsageError, match="Even two layers"):
        cut(configure(), tmp_path)


def test_a_claim_holds_only_where_every_difference_is_small_and_a_number() -> None:
    small, large = Delta("loss", 1e-6, 1e-5), Delta("norm", 1.0, 1e-3)
    assert Check("a", (small,)).ok is True
    assert Check("a", (small, large)).ok is False
    assert Check("a", (Delta("loss", math.nan, 1.0),)).ok is False
    assert Check("a").ok is False
    assert Check("a", failed="broke").ok is False
    assert Check("a", skipped="no adapter").ok is None
    assert "FAILED" in row(Check("a", (small, large)), 10)
    assert "no adapter" in row(Check("a", skipped="no adapter"), 10)


@pytest.mark.slow
def test_the_command_proves_it_all_and_writes_a_receipt(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "resolved.yaml"
    file.write_text(yaml.safe_dump(json.loads(configure(peft=LORA).model_dump_json())))
    receipt = tmp_path / "receipt.json"
    assert main(["prove", "--config", str(file), "--receipt", str(receipt)]) == 0
    printed = capsys.readouterr().out
    assert "Every claim holds" in printed
    written = json.loads(receipt.read_text())
    assert [check["claim"] for check in written["checks"]] == list(CLAIMS)
    assert all(check["ok"] for check in written["checks"])
    assert written["code"].startswith("sha256:")


def test_a_config_that_cannot_be_used_is_said_in_words(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prove", "--config", str(tmp_path / "none.yaml")]) == 2
    file = tmp_path / "resolved.yaml"
    empty = write_rows(tmp_path / "empty.jsonl", [])
    config = configure(dataset={"path_or_dataset_id": str(empty)})
    file.write_text(yaml.safe_dump(json.loads(config.model_dump_json())))
    assert main(["prove", "--config", str(file), "--receipt", str(tmp_path / "r.json")]) == 2
    assert "empty" in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()
