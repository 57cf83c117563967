"""Runs of the recipe on packed rows and on blends."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft

from .helpers import KINDS, losses, metric_lines, rows, write_rows
from .test_sft import interrupt_in_step, same_bits

Configure = Callable[..., TrainConfig]
PACKED = {"packed_sequence_size": 128}
WHOLE = {"global_batch_size": 24, "local_batch_size": 24, "max_steps": 3}


@pytest.mark.parametrize("kind", KINDS)
def test_packed_steps_have_the_losses_of_unpacked_ones(
    kind: str,
    models_of: Callable[[str], Path],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = {"pretrained_model_name_or_path": str(models_of(kind)), "attn_implementation": "eager"}
    assert sft.main(configure(model=model, step_scheduler=WHOLE), tmp_path) == 0
    apart = metric_lines(capsys.readouterr().out)
    model["attn_implementation"] = None  # type: ignore[assignment]
    config = configure(model=model, packed_sequence=PACKED, step_scheduler=WHOLE)
    # A step of all packs is a step of all rows.
    assert sft.main(config, tmp_path) == 0
    said = capsys.readouterr().out
    assert "packed_sequence_size=128 fill=0." in said
    count = int(metric_lines(said, "packs")[0]["packs"])
    packs = {"global_batch_size": count, "local_batch_size": 1, "max_steps": 3, "num_epochs": 3}
    config = configure(model=model, packed_sequence=PACKED, step_scheduler=packs)
    assert sft.main(config, tmp_path) == 0
    together = metric_lines(capsys.readouterr().out)
    for one, other in zip(apart, together, strict=True):
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), abs=1e-5)
        assert float(one["grad_norm"]) == pytest.approx(float(other["grad_norm"]), rel=1e-4)
        assert one["tokens"] == other["tokens"]
    assert all(0 <= float(values["padding"]) < 0.5 for values in [*apart, *together])


def test_a_packed_run_resumes_within_an_epoch_at_the_next_pack(
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    plan = {"global_batch_size": 2, "local_batch_size": 1, "max_steps": 9}
    packed = {"packed_sequence": PACKED, "step_scheduler": plan, "peft": {"dropout": 0.1}}
    for folder in (whole, part):
        folder.mkdir()
    assert sft.main(configure(**packed), whole) == 0
    uninterrupted = losses(capsys.readouterr().out)
    with monkeypatch.context() as patch:
        interrupt_in_step(6, signal.SIGTERM, patch)
        assert sft.main(configure(**packed), part) == 75
    first = losses(capsys.readouterr().out)
    resumed = configure(**packed, checkpoint={"restore_from": str(part)})
    assert sft.main(resumed, part) == 0
    assert first + losses(capsys.readouterr().out) == uninterrupted
    assert same_bits(part / "checkpoints/latest", whole / "checkpoints/latest")


def test_rows_over_a_pack_are_cut_and_counted(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sft.main(configure(packed_sequence={"packed_sequence_size": 48}), tmp_path) == 0
    assert "rows are longer than 48 tokens" in capsys.readouterr().out
    with pytest.raises(UsageError, match="tokens, more than"):
        sft.main(
            configure(
                packed_sequence={"packed_sequence_size": 48}, dataset={"truncation": "error"}
            ),
            tmp_path,
        )


def test_each_source_of_a_blend_has_a_loss_of_its_own(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = write_rows(tmp_path / "sums.jsonl", rows(12))
    said = {"role": "assistant", "content": "x"}
    constant = [{"messages": [{"role": "user", "content": "x"}, said]}] * 12
    same = write_rows(tmp_path / "same old.jsonl", constant)
    blend = {"path_or_dataset_id": [str(sums), str(same)]}
    plan = {"global_batch_size": 8, "local_batch_size": 4, "max_steps": 20}
    for table in ({}, {"packed_sequence": PACKED}):
        assert sft.main(configure(dataset=blend, step_scheduler=plan, **table), tmp_path) == 0
        lines = [
            line
            for line in metric_lines(capsys.readouterr().out)
            if {"loss/sums", "loss/same_old"} <= line.keys()
        ]
        assert len(lines) >= 10
        assert float(lines[-1]["loss/same_old"]) < float(lines[-1]["loss/sums"])
        for line in lines:
            between = sorted(float(line[key]) for key in ("loss/sums", "loss/same_old"))
            assert between[0] <= float(line["loss"]) <= between[1]


def test_packing_is_refused_where_a_layer_carries_one_row_into_the_next(
    configure: Configure, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    config = AutoConfig.for_model(
        "lfm2", hidden_size=32, num_hidden_layers=2, layer_types=["conv", "full_attention"]
    )
    config.save_pretrained(folder)
    model: dict[str, Any] = {"pretrained_model_name_or_path": str(folder)}
    with pytest.raises(UsageError, match=r"it has layers .* that carry one row into the next"):
        sft.main(configure(model=model, packed_sequence=PACKED), tmp_path)
