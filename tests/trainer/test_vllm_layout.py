"""What is saved obeys vLLM's rules for what it loads, which are written out here.

They are those of its `lora/peft_helper.py`, `lora/utils.py` and `lora/lora_model.py`, and of its
loader of whole models, at version 0.26.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft

from .helpers import saved

Configure = Callable[..., TrainConfig]
ONE_STEP = {"max_steps": 1}


def refusals(settings: dict[str, Any], *, max_lora_rank: int = 16) -> list[str]:
    """Why vLLM would refuse an `adapter_config.json`."""
    found = [f"no {key}" for key in ("r", "lora_alpha", "target_modules") if key not in settings]
    if settings.get("modules_to_save"):
        found.append("modules_to_save")
    if settings.get("use_dora"):
        found.append("dora")
    if settings.get("bias", "none") != "none":
        found.append("bias")
    if settings["r"] > max_lora_rank:
        found.append("rank")
    return found


def module_of(weight: str) -> tuple[str, bool]:
    """The layer that a weight of an adapter belongs to, and whether it is its A."""
    assert weight.startswith("base_model.model.")
    parts = weight.split(".")
    assert parts[-1] == "weight" and parts[-2] in ("lora_A", "lora_B"), weight
    return ".".join(parts[2:-2]), parts[-2] == "lora_A"


def adapter_of(folder: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The settings of a saved adapter, and the shapes of its weights."""
    assert [file.name for file in folder.glob("*.safetensors")] == ["adapter_model.safetensors"]
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return json.loads((folder / "adapter_config.json").read_text()), shapes


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("llama", {"use_rslora": True}),
        ("qwen3", {"match_all_linear": True}),
        ("gemma2", {"match_all_linear": True}),
        ("mixtral", {"match_all_linear": True}),
    ],
)
def test_an_adapter_is_one_that_is_loaded(
    kind: str,
    options: dict[str, Any],
    models_of: Callable[[str], Path],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = {"pretrained_model_name_or_path": str(models_of(kind))}
    peft = {"dim": 4, "alpha": 8, **options}
    assert sft.main(configure(model=model, peft=peft, step_scheduler=ONE_STEP), tmp_path) == 0
    assert "vLLM" not in capsys.readouterr().out
    settings, shapes = adapter_of(saved(tmp_path, 1))
    assert not refusals(settings)
    assert settings["use_rslora"] is bool(options.get("use_rslora"))
    config = AutoConfig.from_pretrained(models_of(kind))
    layers = dict(AutoModelForCausalLM.from_config(config).named_modules())
    halves: dict[str, set[bool]] = {}
    for name, shape in shapes.items():
        module, is_a = module_of(name)
        layer = layers[module]
        assert isinstance(layer, nn.Linear)
        assert shape == ((4, layer.in_features) if is_a else (layer.out_features, 4))
        halves.setdefault(module, set()).add(is_a)
    assert halves and all(both == {True, False} for both in halves.values())
    assert {name.rpartition(".")[2] for name in halves} == set(settings["target_modules"])


@pytest.mark.parametrize(
    ("peft", "key", "reason"),
    [
        ({"use_dora": True}, "peft.use_dora", "dora"),
        ({"modules_to_save": ["lm_head"]}, "peft.modules_to_save", "modules_to_save"),
    ],
)
def test_one_that_is_not_is_named_in_the_log(
    peft: dict[str, Any],
    key: str,
    reason: str,
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configure(peft={"dim": 4, "alpha": 8, **peft}, step_scheduler=ONE_STEP)
    assert sft.main(config, tmp_path) == 0
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "vLLM" in x)
    assert f"loads no adapter with {key}: " in line and "convert/merge_lora" in line
    settings, _ = adapter_of(saved(tmp_path, 1))
    assert refusals(settings) == [reason]


def test_the_base_is_found_from_anywhere(
    configure: Configure, tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(llama.parent)
    model = {"pretrained_model_name_or_path": llama.name}
    assert sft.main(configure(model=model, peft="lora", step_scheduler=ONE_STEP), tmp_path) == 0
    settings, _ = adapter_of(saved(tmp_path, 1))
    assert settings["base_model_name_or_path"] == str(llama)


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_a_whole_model_is_one_that_is_loaded(
    kind: str, models_of: Callable[[str], Path], configure: Configure, tmp_path: Path
) -> None:
    model = {"pretrained_model_name_or_path": str(models_of(kind))}
    assert sft.main(configure(model=model, step_scheduler=ONE_STEP), tmp_path) == 0
    folder = saved(tmp_path, 1)
    settings = json.loads((folder / "config.json").read_text())
    # The class is chosen by its name, and the format of the weights by `dtype`.
    (architecture,) = settings["architectures"]
    assert architecture == type(AutoModelForCausalLM.from_pretrained(folder)).__name__
    assert settings["dtype"] == "float32"
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 2
    assert AutoTokenizer.from_pretrained(folder).chat_template
    files = {file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".bin")}
    assert files == {"model.safetensors"}
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
        # Other formats of safetensors are not read as PyTorch's.
        assert file.metadata()["format"] == "pt"
    # Names of the hub's: experts one by one, which it puts together itself.
    if kind == "mixtral":
        assert "model.layers.0.block_sparse_moe.experts.3.w1.weight" in names
    assert "model.embed_tokens.weight" in names
    assert ("lm_head.weight" in names) is not settings["tie_word_embeddings"]
