from __future__ import annotations

import subprocess
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft
from tunedeck.trainer.__main__ import main
from tunedeck.trainer.checkpoints.checksums import SUMS_FILE
from tunedeck.trainer.checkpoints.training_state import SavedState
from tunedeck.trainer.checkpoints.weights import Weights

from .helpers import digests, saved

Configure = Callable[..., TrainConfig]


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma2", "qwen3_moe", "mixtral"])
def test_the_hugging_face_form_is_what_the_library_itself_would_save(
    kind: str,
    models_of: Callable[[str], Path],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In several files, with the live model's logits, under the names that readers expect."""
    live: dict[str, Any] = {}
    ids = torch.tensor([[5, 9, 30, 31, 2]])
    original = Weights.__init__

    def in_small_files(self: Weights, model: Any, *args: Any, **options: Any) -> None:
        original(self, model, *args, **options, file_size=20_000)
        live["model"] = model

    monkeypatch.setattr(Weights, "__init__", in_small_files)
    model = {"pretrained_model_name_or_path": str(models_of(kind))}
    assert sft.main(configure(model=model, step_scheduler={"max_steps": 2}), tmp_path) == 0
    folder = saved(tmp_path, 2)
    assert len(list(folder.glob("model-0000?-of-*.safetensors"))) > 1
    reference = tmp_path / "reference"
    live["model"].save_pretrained(reference)
    theirs = load_file(reference / "model.safetensors")
    ours: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        ours |= load_file(file)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    assert type(loaded).__name__ == loaded.config.architectures[0]
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(input_ids=ids).logits, live["model"].eval()(input_ids=ids).logits
        )
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert (folder / "generation_config.json").is_file()


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_no_more_than_one_whole_weight_is_held_while_the_form_is_made(
    kind: str,
    models_of: Callable[[str], Path],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    original = SavedState.whole

    def watched(self: SavedState, name: str) -> torch.Tensor:
        assert [one for one in held if one() is not None] == []
        tensor = original(self, name)
        held.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(SavedState, "whole", watched)
    model = {"pretrained_model_name_or_path": str(models_of(kind))}
    assert sft.main(configure(model=model, step_scheduler={"max_steps": 1}), tmp_path) == 0
    assert len(held) > 15


@pytest.mark.parametrize(
    ("wanted", "steps_with_weights"), [("every", {2, 4}), ("final", {4}), (False, set())]
)
def test_the_hugging_face_form_is_written_when_it_is_asked_for(
    wanted: Any, steps_with_weights: set[int], configure: Configure, tmp_path: Path
) -> None:
    settings = {"save_consolidated": wanted, "keep_last": None}
    steps = {"ckpt_every_steps": 2}
    assert sft.main(configure(step_scheduler=steps, checkpoint=settings), tmp_path) == 0
    found = {step for step in (2, 4) if (saved(tmp_path, step) / "model.safetensors").is_file()}
    assert found == steps_with_weights
    resumed = configure(checkpoint={"restore_from": str(saved(tmp_path, 2))})
    assert sft.main(resumed, tmp_path) == 0


@pytest.mark.parametrize("kind", ["qwen3", "mixtral"])
def test_the_hugging_face_form_can_be_made_afterwards(
    kind: str,
    models_of: Callable[[str], Path],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_form, without = tmp_path / "with", tmp_path / "without"
    for folder in (with_form, without):
        folder.mkdir()
    model = {"pretrained_model_name_or_path": str(models_of(kind))}
    steps = {"max_steps": 1}
    assert sft.main(configure(model=model, step_scheduler=steps), with_form) == 0
    later = {"save_consolidated": "none"}
    assert sft.main(configure(model=model, step_scheduler=steps, checkpoint=later), without) == 0
    assert f"consolidate {saved(without, 1)}" in capsys.readouterr().out
    assert main(["consolidate", str(without)]) == 0
    assert digests(saved(without, 1)) == digests(saved(with_form, 1))
    check = ["sha256sum", "--strict", "-c", SUMS_FILE]
    assert subprocess.run(check, cwd=saved(without, 1), check=False).returncode == 0
    AutoModelForCausalLM.from_pretrained(saved(without, 1))
    assert main(["consolidate", str(without)]) == 2
    assert "has its weights already" in capsys.readouterr().err
