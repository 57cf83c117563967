"""Models that take images: trained on text, with their towers left as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
)

from tunedeck.core.chat import check_dataset
from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft

from .helpers import SIZES, losses, rows, saved, write_rows

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

Configure = Callable[..., TrainConfig]
PROCESSOR = {
    "preprocessor_config.json": '{"image_processor_type": "CLIPImageProcessor"}',
    "processor_config.json": '{"processor_class": "LlavaProcessor"}',
}


def _config(kind: str, vocabulary: int) -> Any:
    text: dict[str, Any] = {**SIZES, "vocab_size": vocabulary}
    if kind == "llava":
        tower: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "patch_size": 4}
        return LlavaConfig(
            text_config=LlamaConfig(**text),
            vision_config=CLIPVisionConfig(
                **tower, num_hidden_layers=1, num_attention_heads=2, image_size=8, projection_dim=16
            ),
            image_token_index=255,
        )
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    return Qwen2VLConfig(
        text_config={**text, "rope_parameters": rope},
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2},
        image_token_id=255,
    )


@pytest.fixture(params=["llava", "qwen2_vl"])
def seeing(
    request: pytest.FixtureRequest, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> Path:
    """The folder of a new tiny model that takes images, with its processor."""
    folder = tmp_path / "base"
    torch.manual_seed(0)
    config = _config(request.param, len(tokenizer))
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, text in PROCESSOR.items():
        (folder / name).write_text(text)
    return folder


def of(folder: Path, **tables: Any) -> dict[str, Any]:
    return {"model": {"pretrained_model_name_or_path": str(folder)}, **tables}


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=torch.arange(40).reshape(2, 20) + 5).logits
    return found


def load(folder: Path) -> torch.nn.Module:
    auto: Any = AutoModelForImageTextToText
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return cast(torch.nn.Module, model.train(False))


def test_the_whole_language_part_is_trained_and_saved_with_the_processor(
    seeing: Path, configure: Configure, tmp_path: Path
) -> None:
    live: dict[str, torch.Tensor] = {}

    def look(state: Any) -> None:
        state.model.train(False)
        live["logits"] = logits(state.model)

    assert sft.main(configure(**of(seeing)), tmp_path, then=look) == 0
    folder = tmp_path / "checkpoints/latest"
    torch.testing.assert_close(logits(load(folder)), live["logits"])
    before, after = (load_file(path / "model.safetensors") for path in (seeing, folder))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("q_proj" in name for name in changed)
    assert not any("vision" in name or "visual" in name for name in changed)
    for name, text in PROCESSOR.items():
        assert (folder / name).read_text() == text


def test_adapters_are_put_into_the_parts_that_are_not_frozen(
    seeing: Path, configure: Configure, tmp_path: Path
) -> None:
    assert sft.main(configure(**of(seeing), peft={"dim": 4}), tmp_path) == 0
    folder = tmp_path / "checkpoints/latest"
    names = load_file(folder / "adapter_model.safetensors").keys()
    assert names and not any("vision" in name or "visual" in name for name in names)
    assert (folder / "preprocessor_config.json").is_file()
    tuned = peft.PeftModel.from_pretrained(load(seeing), str(folder))
    assert not torch.allclose(logits(tuned), logits(load(seeing)))


def test_a_tower_that_is_not_frozen_gets_adapters_too(
    seeing: Path, configure: Configure, tmp_path: Path
) -> None:
    tables = of(seeing)
    tables["model"]["freeze"] = {"vision_tower": False}
    assert sft.main(configure(**tables, peft={"dim": 4}), tmp_path) == 0
    names = load_file(tmp_path / "checkpoints/latest/adapter_model.safetensors").keys()
    assert any("vision" in name or "visual" in name for name in names)


def test_layers_of_a_frozen_tower_alone_cannot_be_adapted(
    seeing: Path, configure: Configure, tmp_path: Path
) -> None:
    targets = {"target_modules": ["fc1"]}
    with pytest.raises(UsageError, match=r"which model\.freeze leaves untrained"):
        sft.main(configure(**of(seeing), peft=targets), tmp_path)


def test_a_resumed_run_equals_an_uninterrupted_one(
    seeing: Path, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"max_steps": 4, "ckpt_every_steps": 2}
    keep = {"keep_last": None}
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    sft.main(configure(**of(seeing), step_scheduler=steps, checkpoint=keep), whole)
    expected = losses(capsys.readouterr().out)
    restored = {"restore_from": str(saved(whole, 2))}
    sft.main(configure(**of(seeing), step_scheduler=steps, checkpoint=restored), rest)
    assert losses(capsys.readouterr().out) == expected[2:]
    ends = (load_file(saved(run, 4) / "model.safetensors") for run in (whole, rest))
    one, other = ends
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_rows_with_images_are_refused_before_and_in_the_run(
    seeing: Path, configure: Configure, tmp_path: Path
) -> None:
    picture = {"type": "image", "url": "cat.png"}
    asked = {"role": "user", "content": [picture, {"type": "text", "text": "What is it?"}]}
    row = {"messages": [asked, {"role": "assistant", "content": "A cat."}]}
    file = write_rows(tmp_path / "seen.jsonl", [*rows(2), row])
    report = check_dataset(str(file), None)
    assert report.refused["media"].count == 1
    data = {"path_or_dataset_id": str(file)}
    with pytest.raises(
        UsageError, match=r"Row 3: .* part of type 'image'; only text is trained on"
    ):
        sft.main(configure(**of(seeing), dataset=data), tmp_path)


def test_what_does_not_go_with_images_is_refused(
    seeing: Path, configure: Configure, tmp_path: Path
) -> None:
    packed = {"packed_sequence": {"packed_sequence_size": 64}}
    with pytest.raises(UsageError, match="Packing does not go with a model that takes images"):
        sft.main(configure(**of(seeing), **packed), tmp_path)
    tables = of(seeing)
    tables["model"]["freeze"] = {"language_model": True}
    with pytest.raises(UsageError, match="the part of the model that reads text is frozen"):
        sft.main(configure(**tables), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_load_and_train_it_as_one_does(
    seeing: Path, configure: Configure, tmp_path: Path
) -> None:
    config = configure(**of(seeing), optimizer={"eps": 1e-3}).model_dump(mode="json")
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    found = []
    for ranks in (1, 2):
        run = tmp_path / str(ranks)
        run.mkdir()
        command = [sys.executable, "-m", "tunedeck.trainer.torchrun", f"--nproc-per-node={ranks}"]
        command += ["-m", "tunedeck.trainer", "sft", "--config", str(tmp_path / "config.yaml")]
        environment = {**os.environ, "TUNEDECK_RUN_DIR": str(run), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.append([float(loss) for loss in losses(done.stdout)])
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    one, two = (logits(load(tmp_path / f"{ranks}/checkpoints/latest")) for ranks in (1, 2))
    torch.testing.assert_close(two, one, rtol=0, atol=2e-4)
