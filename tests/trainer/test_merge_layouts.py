"""Merging into bases whose files hold weights under other names, or in pieces."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
)

from tunedeck.core.errors import UsageError

from .adapters import adapted, load, logits, make_adapter, run
from .helpers import SIZES

# PEFT asks for a name that transformers has deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*_pattern keys did not match:RuntimeWarning"),
]


def llava(folder: Path) -> Path:
    """A model with an image tower, whose language model lies one module deeper."""
    torch.manual_seed(0)
    tower: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text: dict[str, Any] = {**SIZES, "vocab_size": 256}
    config = LlavaConfig(
        text_config=LlamaConfig(**text),
        vision_config=CLIPVisionConfig(
            **tower, num_attention_heads=2, image_size=8, patch_size=4, projection_dim=16
        ),
        image_token_index=255,
    )
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    return folder


EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "everything": {"target_modules": "all-linear"},
    "router": {"target_modules": ["gate"]},
    "experts": {"target_modules": ["q_proj"], "target_parameters": EXPERTS},
    "some-experts": {"target_modules": [], "target_parameters": EXPERTS[1:]},
    "scaled": {"target_modules": "all-linear", "use_rslora": True},
    "whole-router": {"target_modules": ["q_proj"], "modules_to_save": ["gate"]},
    "whole-experts": {"target_modules": ["q_proj"], "modules_to_save": ["experts"]},
}


@pytest.mark.parametrize("options", ADAPTERS.values(), ids=ADAPTERS)
@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_experts_and_routers_are_merged_into_the_pieces_that_the_files_hold(
    kind: str, options: dict[str, Any], models_of: Callable[[str], Path], tmp_path: Path
) -> None:
    base = models_of(kind)
    adapter = make_adapter(base, tmp_path / "adapter", **options)

    output = run(adapter, tmp_path / "run")

    expected = logits(adapted(base, adapter))
    assert (expected - logits(load(base))).abs().max() > 1e-3
    torch.testing.assert_close(logits(load(output)), expected, rtol=0, atol=2e-5)
    names = load_file(base / "model.safetensors").keys()
    assert load_file(output / "model.safetensors").keys() == names
    assert json.loads((tmp_path / "run/result.json").read_text())["logit_difference"] < 1e-5


@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}])
def test_the_language_part_of_a_model_with_images_is_merged(
    options: dict[str, Any], tmp_path: Path
) -> None:
    base = llava(tmp_path / "base")
    (base / "preprocessor_config.json").write_text("{}")
    targets = r".*language_model.*\.(q_proj|down_proj)"
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=targets, **options)

    output = run(adapter, tmp_path / "run")

    expected = logits(adapted(base, adapter))
    assert (expected - logits(load(base))).abs().max() > 1e-3
    torch.testing.assert_close(logits(load(output)), expected, rtol=0, atol=2e-5)
    assert (output / "preprocessor_config.json").is_file()


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_linear_attention_alone_is_merged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {**SIZES, "num_hidden_layers": 2, "vocab_size": 256, "mamba_n_heads": 8}
    config = AutoConfig.for_model(
        "granitemoehybrid",
        **sizes,
        layers_block_type=["mamba", "mamba"],
        layer_types=["mamba", "mamba"],
        mamba_d_head=8,
        mamba_d_state=8,
        num_local_experts=4,
        num_experts_per_tok=2,
        shared_intermediate_size=32,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    adapter = make_adapter(tmp_path / "base", tmp_path / "adapter", target_modules=["in_proj"])
    run(adapter, tmp_path / "run")
    assert json.loads((tmp_path / "run/result.json").read_text())["logit_difference"] < 1e-4


def test_an_adapter_for_experts_does_not_fit_a_dense_model(
    models_of: Callable[[str], Path], tmp_path: Path
) -> None:
    options = ADAPTERS["experts"]
    adapter = make_adapter(models_of("mixtral"), tmp_path / "adapter", **options)
    with pytest.raises(UsageError, match="does not fit the base"):
        run(adapter, tmp_path / "run", base_hf_path=str(models_of("llama")))
    assert list((tmp_path / "run").iterdir()) == []


def test_an_adapter_for_other_experts_is_refused_by_their_shape(
    models_of: Callable[[str], Path], tmp_path: Path
) -> None:
    adapter = make_adapter(models_of("qwen3_moe"), tmp_path / "adapter", **ADAPTERS["experts"])
    config = load(models_of("qwen3_moe")).config
    config.num_experts = 8
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "other")
    # Nothing here tells the digest of a base that is not on this machine.
    names = adapter / "adapter_config.json"
    names.write_text(names.read_text().replace(str(models_of("qwen3_moe")), "someone/elsewhere"))
    with pytest.raises(UsageError, match=r"experts\.\w+' is \[8, .*adapter is for"):
        run(adapter, tmp_path / "run", base_hf_path=str(tmp_path / "other"))


def test_names_of_the_model_itself_are_found_in_files_as_well(tmp_path: Path) -> None:
    base = llava(tmp_path / "base")
    file = base / "model.safetensors"
    names = load_file(file).keys()
    weights = {name: weight.clone() for name, weight in load(base).state_dict().items()}
    assert weights.keys() != names
    save_file(weights, file, metadata={"format": "pt"})
    targets = r".*language_model.*\.(q_proj|v_proj)"
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=targets)

    output = run(adapter, tmp_path / "run")

    expected = logits(adapted(base, adapter))
    torch.testing.assert_close(logits(load(output)), expected, rtol=0, atol=2e-5)
    assert load_file(output / "model.safetensors").keys() == weights.keys()


def new_model(folder: Path, kind: str, **sizes: Any) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES, vocab_size=64, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def test_a_weight_that_the_files_hold_in_one_piece_with_others_is_refused(tmp_path: Path) -> None:
    base = new_model(tmp_path / "base", "hrm_text")
    for target in ("gate_proj", "up_proj"):  # the first and another of the piece
        adapter = make_adapter(base, tmp_path / target, target_modules=[target])
        with pytest.raises(UsageError, match=r"'model\.H_module.*' in one piece with others"):
            run(adapter, tmp_path / "run")


def test_a_model_whose_code_knows_no_float64_is_compared_in_float32(tmp_path: Path) -> None:
    sizes = {"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4}
    base = new_model(tmp_path / "base", "xglm", **sizes)
    with pytest.raises(RuntimeError):
        load(base).double()(input_ids=torch.zeros(1, 2, dtype=torch.long))
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "fc1"])
    run(adapter, tmp_path / "run")
    assert json.loads((tmp_path / "run/result.json").read_text())["logit_difference"] < 1e-5


def test_a_quantized_base_is_refused(tmp_path: Path, models_of: Callable[[str], Path]) -> None:
    adapter = make_adapter(models_of("llama"), tmp_path / "adapter")
    base = shutil.copytree(models_of("llama"), tmp_path / "base")
    values = json.loads((base / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (base / "config.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match="stored quantized"):
        run(adapter, tmp_path / "run", base_hf_path=str(base))
    assert not (tmp_path / "run/merged-hf").exists()


PEAK = """
import re, sys
from pathlib import Path
from tunedeck.core.schema.merge import MergeConfig
from tunedeck.trainer.merging import merge
# Measuring loads both models, where they are small enough.
merge.merge_difference = lambda *_, **__: None
merge.main(MergeConfig(lora_checkpoint=sys.argv[1]), Path(sys.argv[2]))
# Unlike getrusage, this knows nothing of the process that started it.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_shards(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        **SIZES,
        "vocab_size": 64,
        "hidden_size": 1024,
        "intermediate_size": 2048,
    }
    peaks, mebibytes = [], []
    for layers in (2, 16):
        folder = tmp_path / str(layers)
        folder.mkdir()
        config = LlamaConfig(**{**sizes, "num_hidden_layers": layers})
        model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(folder / "base", max_shard_size="20MB")
        mebibytes.append(model.num_parameters() * 4 >> 20)
        options = {"target_modules": ["q_proj", "down_proj"]}
        adapter = make_adapter(folder / "base", folder / "adapter", **options)
        command = [sys.executable, "-c", PEAK, str(adapter), str(folder)]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(int(run.stdout.split()[-1]))
        assert len(list((folder / "merged-hf").glob("*.safetensors"))) > layers // 2
    assert mebibytes[1] - mebibytes[0] > 400
    assert peaks[1] - peaks[0] < 0.2 * (mebibytes[1] - mebibytes[0])
