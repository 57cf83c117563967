"""Continuing from a checkpoint: what is refused, what is said, and what is left alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from transformers import AutoConfig, AutoModelForCausalLM

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft
from tunedeck.trainer.__main__ import main

from .helpers import KINDS, SIZES, TEMPLATE, digests, losses, rows, saved, write_rows

Configure = Callable[..., TrainConfig]
LORA = {"dim": 4, "alpha": 8}
STEPS = {"max_steps": 4, "ckpt_every_steps": 2}


@pytest.fixture
def trained(configure: Configure, tmp_path: Path) -> Path:
    """A run of four steps with a checkpoint of the second."""
    run = tmp_path / "run"
    run.mkdir()
    config = configure(peft=LORA, step_scheduler=STEPS, checkpoint={"keep_last": None})
    assert sft.main(config, run) == 0
    return run


def test_another_unit_of_samples_is_refused_before_data_and_model_are_loaded(
    trained: Path, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "training_rows", pytest.fail)
    restore = {"restore_from": str(saved(trained, 2))}
    packed = {"packed_sequence": {"packed_sequence_size": 128}}
    key = "packed_sequence.packed_sequence_size"
    with pytest.raises(UsageError, match=rf"{key}: It is 128, and was 0") as caught:
        sft.main(configure(peft=LORA, step_scheduler=STEPS, checkpoint=restore, **packed), tmp_path)
    assert f"Set {key}=0" in caught.value.fix


def test_other_rows_and_another_order_are_said(
    trained: Path, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    restore = {"restore_from": str(saved(trained, 2))}
    other = write_rows(tmp_path / "other.jsonl", rows(24, seed=1))
    tables = {"peft": LORA, "step_scheduler": STEPS, "checkpoint": restore}
    capsys.readouterr()
    changed = {
        "rng": {"seed": 4},
        "dataset": {"path_or_dataset_id": str(other)},
        "tokenizer": {"chat_template": TEMPLATE.replace("\n", "\n\n")},
    }
    assert sft.main(configure(**tables, **changed), tmp_path) == 0
    warned = re.findall(r"warning: ([\w.]+): ", capsys.readouterr().out)
    assert warned == ["dataset.path_or_dataset_id", "rng.seed", "tokenizer.chat_template"]
    # Nothing is said of a run that goes on as it was, also by the template that was saved.
    as_it_was = {"chat_template": str(saved(trained, 2) / "chat_template.jinja")}
    assert sft.main(configure(**tables, tokenizer=as_it_was), tmp_path) == 0
    assert "warning" not in capsys.readouterr().out


def test_an_adapter_does_not_go_on_with_another_base(
    trained: Path, llama: Path, configure: Configure, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(llama, other)
    weights = load_file(other / "model.safetensors")
    weights["lm_head.weight"] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    tables = {"peft": LORA, "step_scheduler": STEPS, "checkpoint": {"restore_from": str(trained)}}
    config = configure(**tables, model={"pretrained_model_name_or_path": str(other)})
    with pytest.raises(UsageError, match=f"trained on other weights than those of '{other}'"):
        sft.main(config, tmp_path)


def test_where_nothing_is_left_to_train_the_result_is_what_was_continued(
    trained: Path, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {**STEPS, "max_steps": 3}
    restore = {"restore_from": str(trained)}
    assert sft.main(configure(peft=LORA, step_scheduler=steps, checkpoint=restore), tmp_path) == 0
    assert "nothing is left to train: the config comes to 3 steps" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["checkpoint"] == str(saved(trained, 4))


def test_a_copy_without_links_is_continued_and_its_folders_are_kept(
    trained: Path, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "copied"
    # As `cp -rL` leaves it.
    shutil.copytree(trained, copied)
    latest = copied / "checkpoints/latest"
    assert latest.is_dir() and not latest.is_symlink()
    shutil.rmtree(latest)
    shutil.copytree(saved(trained, 2), latest)
    (latest / "mine.txt").write_text("a note")
    # As network file systems leave where a file was open as it was deleted.
    (latest / "state/.nfs0001").touch()
    config = configure(peft=LORA, step_scheduler=STEPS, checkpoint={"restore_from": str(copied)})
    assert sft.main(config, copied) == 0
    printed = capsys.readouterr().out
    assert len(losses(printed)) == 2
    assert digests(saved(copied, 4)) == digests(saved(trained, 4))
    assert "warning: " in printed and "latest_copy_1" in printed
    assert latest.is_symlink() and latest.resolve() == saved(copied, 4).resolve()
    assert (copied / "checkpoints/latest_copy_1/mine.txt").read_text() == "a note"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("background", [False, True])
def test_states_in_eight_bits_are_continued_with_their_scales(
    background: bool, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes")
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    for folder in (whole, rest):
        folder.mkdir()
    tables: dict[str, Any] = {
        "optimizer": {"name": "adamw8bit", "lr": 1e-2},
        "step_scheduler": {"max_steps": 6, "ckpt_every_steps": 3},
    }
    keep = {"keep_last": None, "async_save": background}
    assert sft.main(configure(**tables, checkpoint=keep), whole) == 0
    expected = losses(capsys.readouterr().out)[3:]
    read = FileSystemReader(saved(whole, 3) / "state").read_metadata().state_dict_metadata
    # Of the embeddings, which are large enough: values in bytes, and what scales each block.
    kept = {name.rpartition(".")[2]: one for name, one in read.items() if "lm_head" in name}
    first = kept["state1"]
    assert isinstance(first, TensorStorageMetadata) and first.properties.dtype == torch.uint8
    assert {"state2", "absmax1", "absmax2", "qmap1", "qmap2", "step"} <= kept.keys()
    restore = {"restore_from": str(saved(whole, 3))}
    assert sft.main(configure(**tables, checkpoint=restore), rest) == 0
    assert losses(capsys.readouterr().out) == expected
    assert digests(saved(rest, 6)) == digests(saved(whole, 6))


@pytest.mark.parametrize(
    "damage", ["state/.metadata", "state/training_state.json", "SHA256SUMS", "state/__0_0.distcp"]
)
def test_a_file_that_was_cut_short_is_named_and_the_checkpoint_before_offered(
    damage: str, trained: Path, configure: Configure, tmp_path: Path
) -> None:
    file = saved(trained, 4) / damage
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    config = configure(peft=LORA, step_scheduler=STEPS, checkpoint={"restore_from": str(trained)})
    with pytest.raises(UsageError, match=re.escape(str(file))) as caught:
        sft.main(config, tmp_path)
    assert str(saved(trained, 2)) in caught.value.fix


def test_consolidating_nothing_is_said_of_what_was_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["consolidate", str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr().err
    assert f"There is nothing at '{tmp_path / 'nowhere'}'" in said
    assert "restore_from" not in said


def test_a_checkpoint_says_what_its_place_depends_on(trained: Path) -> None:
    state: dict[str, Any] = json.loads(
        (saved(trained, 4) / "state/training_state.json").read_text()
    )
    assert state["data"]["rng.seed"] == 3
    # No path of the machine that trained it.
    assert "/" not in json.dumps(state["data"])


def test_the_last_step_is_written_once_and_is_the_best_if_its_validation_says_so(
    configure: Configure,
    tmp_path: Path,
    chat_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is due by the interval of checkpoints, and its validation by the end of the run alone."""
    config = configure(
        step_scheduler={**STEPS, "val_every_steps": 3},
        validation_dataset={"path_or_dataset_id": str(chat_file), "split": "train[:4]"},
        checkpoint={"save_consolidated": "final", "keep_last": None},
    )
    assert sft.main(config, tmp_path) == 0
    printed = capsys.readouterr().out
    assert printed.count("tunedeck: saved") == 3
    assert (saved(tmp_path, 4) / "model.safetensors").is_file()
    best = tmp_path / "checkpoints/best"
    assert best.resolve() == saved(tmp_path, 4).resolve()
    assert json.loads((tmp_path / "result.json").read_text())["best_checkpoint"] == str(
        saved(tmp_path, 4)
    )


# What a model looks up beside its weights, no file has: tables of positions, scales, constants.
TABLES: dict[str, dict[str, Any]] = {
    "gemma2": {},
    "gemma3_text": {},
    "qwen3_moe": {},
    "phi3": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "gpt_neox": {},
    "bloom": {"n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "falcon": {},
    "llama": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLES)
def test_a_continued_model_looks_up_what_the_uninterrupted_one_does(
    kind: str,
    configure: Configure,
    llama: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is built without the weights of its base, and what is in no checkpoint is made anew."""
    whole, rest, base = (tmp_path / name for name in ("whole", "rest", "base"))
    for folder in (whole, rest):
        folder.mkdir()
    torch.manual_seed(0)
    sizes = {**SIZES, "vocab_size": 260, **KINDS.get(kind, {}), **TABLES[kind]}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(base)
    tables: dict[str, Any] = {
        "model": {"pretrained_model_name_or_path": str(base)},
        "tokenizer": {"name": str(llama)},
        "step_scheduler": {"max_steps": 4, "ckpt_every_steps": 2},
    }
    assert sft.main(configure(**tables, checkpoint={"keep_last": None}), whole) == 0
    expected = losses(capsys.readouterr().out)[2:]
    for file in base.glob("*.safetensors"):
        file.unlink()
    restore = {"restore_from": str(saved(whole, 2))}
    assert sft.main(configure(**tables, checkpoint=restore), rest) == 0
    assert losses(capsys.readouterr().out) == expected
    assert digests(saved(rest, 4)) == digests(saved(whole, 4))
