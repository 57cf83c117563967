from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.model import FreezeConfig, TokenizerConfig
from tunedeck.core.schema.model_facts import model_facts
from tunedeck.trainer.checkpoints.published import Checkpoints
from tunedeck.trainer.model.build import freeze
from tunedeck.trainer.setup import (
    get_tokenizer,
    setup_distributed,
    setup_model_and_optimizer,
    setup_reference_model_state,
    validate_and_prepare_config,
)

Configure = Callable[..., TrainConfig]
MESSAGES = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def rendered(name: Path, **settings: Any) -> str:
    tokenizer = get_tokenizer(TokenizerConfig(name=str(name), **settings))
    text: str = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    return text


def test_the_chat_template_is_the_tokenizers_own_passed_through_a_file_or_inline(
    llama: Path, tmp_path: Path
) -> None:
    inline = "{% for m in messages %}<{{ m.content }}{{ mark }}>{% endfor %}"
    file = tmp_path / "own.jinja"
    file.write_text(inline)
    own = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    assert rendered(llama) == own
    assert rendered(llama, chat_template="default") == own
    assert rendered(llama, chat_template=None) == "ab"
    assert rendered(llama, chat_template=inline) == "<a><b>"
    assert rendered(llama, chat_template=str(file)) == "<a><b>"
    arguments = {"mark": "!"}
    found = rendered(llama, chat_template=inline, chat_template_kwargs=arguments)
    assert found == "<a!><b!>"


def test_a_missing_pad_token_becomes_the_end_of_text(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "copy")
    file = tmp_path / "copy/tokenizer_config.json"
    settings = {k: v for k, v in json.loads(file.read_text()).items() if k != "pad_token"}
    file.write_text(json.dumps(settings))
    tokenizer = get_tokenizer(TokenizerConfig(name=str(tmp_path / "copy")))
    assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"


def test_a_tokenizer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing"):
        get_tokenizer(TokenizerConfig(name=str(tmp_path / "missing")))


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"distributed": {"tp_size": 2}}, "distributed"),
        ({"model": {"pretrained_model_name_or_path": "/missing/model"}}, "/missing/model"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_loaded(
    tables: dict[str, Any], key: str, configure: Configure
) -> None:
    with pytest.raises(UsageError) as caught:
        validate_and_prepare_config(configure(**tables), None, 0)
    assert key in caught.value.message


@pytest.mark.parametrize("kind", ["t5", "vit"])
def test_a_model_that_is_no_causal_language_model_is_refused(
    kind: str, configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    config = configure(model={"pretrained_model_name_or_path": str(tmp_path)})
    with pytest.raises(UsageError, match=r"not a causal language model"):
        validate_and_prepare_config(config, None, 0)


class Gpu:
    """What torch says of a machine with two GPUs."""

    def __init__(self, patch: pytest.MonkeyPatch, *, half: bool = True) -> None:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        patch.setattr(torch.cuda, "set_device", self.take)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda **_: half)
        self.taken: list[torch.device] = []

    def take(self, device: torch.device) -> None:
        self.taken.append(device)


F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("name", "peft", "gpu", "expected"),
    [
        ("auto", None, None, (F32, None)),
        ("auto", "lora", None, (F32, None)),
        ("auto", None, True, (F32, BF16)),
        ("auto", "lora", True, (BF16, BF16)),
        ("auto", "lora", False, (F32, None)),
        ("bfloat16", None, True, (BF16, None)),
        ("bfloat16", "lora", True, (BF16, BF16)),
        ("bfloat16", "lora", None, (BF16, None)),
        ("float16", "lora", True, (F16, F16)),
        ("float32", "lora", True, (F32, None)),
        ("float32", None, True, (F32, None)),
    ],
)
def test_weights_and_products_have_the_formats_that_suit_them(
    name: str,
    peft: str | None,
    gpu: bool | None,
    expected: Any,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if gpu is not None:
        Gpu(monkeypatch, half=gpu)
    config = configure(model={"torch_dtype": name}, peft=peft)
    runtime = validate_and_prepare_config(config, None, 0)
    assert (runtime.dtype, runtime.autocast) == expected
    warned = "lose small updates" in capsys.readouterr().out
    assert warned is (peft is None and runtime.dtype != F32)


def test_each_process_takes_the_gpu_of_its_number(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Gpu(monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert validate_and_prepare_config(configure(), None, 5).device == torch.device("cuda", 1)
    assert gpu.taken == [torch.device("cuda", 1)]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="GPU 2, and 2 are to be seen") as caught:
        validate_and_prepare_config(configure(), None, 2)
    assert "--nproc-per-node 2" in caught.value.fix
    # The first, which speaks for its machine, finds it as well.
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="GPU 2, and 2 are to be seen"):
        validate_and_prepare_config(configure(), None, 0)


def build(config: TrainConfig, tmp_path: Path, name: Path, **options: Any) -> Any:
    runtime = validate_and_prepare_config(config, None, 0)
    context = setup_distributed(config, runtime)
    tokenizer = get_tokenizer(TokenizerConfig(name=str(name)))
    checkpoints = Checkpoints(tmp_path, keep_last=None)
    return setup_model_and_optimizer(
        config, tokenizer, runtime, context, checkpoints, total_steps=10, **options
    )


def test_an_adapter_is_trained_and_its_base_is_not(
    configure: Configure, tmp_path: Path, llama: Path
) -> None:
    state = build(configure(peft="lora"), tmp_path, llama)
    trained = {name for name, p in state.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any("lm_head" in name for name in trained)
    optimized = sum(p.numel() for group in state.optimizer.param_groups for p in group["params"])
    assert optimized == sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    assert state.scheduler(0) == 1e-2


DENSE_TOO = {"num_hidden_layers": 2, "mlp_only_layers": [0]}


def mixed_model(models_of: Callable[[str], Path]) -> dict[str, Any]:
    """A model whose first layer is dense and whose second one has experts."""
    config = json.loads((models_of("qwen3_moe") / "config.json").read_text())
    model = {"pretrained_model_name_or_path": None, "config": {**config, **DENSE_TOO}}
    return {"model": model, "tokenizer": {"name": str(models_of("qwen3_moe"))}}


def test_layers_that_peft_takes_for_experts_are_left_out_and_it_is_said(
    configure: Configure,
    models_of: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configure(peft={"dim": 4, "dropout": 0.1}, **mixed_model(models_of))
    names = {
        name.partition(".lora_")[0].rpartition(".")[2]
        for name, parameter in build(
            config, tmp_path, models_of("qwen3_moe")
        ).model.named_parameters()
        if parameter.requires_grad
    }
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert "The experts of the model get no adapters, nor do dense" in capsys.readouterr().out


@pytest.mark.parametrize(
    "target",
    ["gate_proj", "*_proj", "layers.0.mlp.down_proj", "gate", "experts", "*.experts.gate_up_proj"],
)
def test_experts_and_what_peft_takes_for_them_cannot_be_asked_for(
    target: str, configure: Configure, models_of: Callable[[str], Path]
) -> None:
    config = configure(peft={"target_modules": target}, **mixed_model(models_of))
    with pytest.raises(UsageError, match=r"peft.target_modules: The names mean experts"):
        validate_and_prepare_config(config, None, 0)


def test_the_names_that_mean_experts_are_those_of_peft() -> None:
    from peft.utils import transformers_weight_conversion as conversion
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    kinds: dict[str, str] = vars(conversion)["_MODEL_TO_CONVERSION_PATTERN"]
    named = {
        kind: set(conversion._MOE_TARGET_MODULE_MAPPING[like])
        for kind, like in kinds.items()
        if kind == kind.lower()  # the rest are classes
        and like in conversion._MOE_TARGET_MODULE_MAPPING
        and get_checkpoint_conversion_mapping(kind) is not None
    }
    assert {"mixtral", "qwen3_moe"} <= named.keys()
    for kind, names in named.items():
        found = set(model_facts({"model_type": kind}).expert_layers)
        assert found == names | {"gate_up_proj", "down_proj"}, kind
    assert not model_facts({"model_type": "qwen2_moe"}).expert_layers


def test_a_layer_that_is_not_there_is_found_before_anything_is_loaded(
    configure: Configure, tmp_path: Path, llama: Path
) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(llama / name, tmp_path)
    config = configure(
        model={"pretrained_model_name_or_path": str(tmp_path)}, peft={"target_modules": "q_prj"}
    )
    with pytest.raises(UsageError, match="called 'q_prj'") as caught:
        build(config, tmp_path, tmp_path)
    assert "Did you mean 'q_proj'" in caught.value.fix


def test_norms_and_biases_do_not_decay(configure: Configure, tmp_path: Path, llama: Path) -> None:
    state = build(configure(optimizer={"weight_decay": 0.5}), tmp_path, llama)
    groups = state.optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, parameter in state.model.named_parameters():
        assert decay[id(parameter)] == (0.0 if "norm" in name else 0.5)


def test_no_optimizer_is_built_where_none_is_wanted(
    configure: Configure, tmp_path: Path, llama: Path
) -> None:
    state = build(configure(), tmp_path, llama, init_optimizer=False)
    assert state.optimizer is None
    assert state.scheduler is None


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"target_modules": ["q_prj"]}, "'q_prj'"),
        ({"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}, "no layer"),
        ({"modules_to_save": ["embed"]}, "'embed'"),
        ({"modules_to_save": ["mlp.input_layernorm"]}, "input_layernorm"),
    ],
)
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(
    table: dict[str, Any], said: str, configure: Configure, tmp_path: Path, llama: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        build(configure(peft=table), tmp_path, llama)


def test_what_excludes_no_layer_is_said_once(
    configure: Configure, tmp_path: Path, llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    excluded = ["*vision*", "down_proj"]
    build(configure(peft={"match_all_linear": True, "exclude_modules": excluded}), tmp_path, llama)
    printed = capsys.readouterr().out
    assert printed.count("peft.exclude_modules") == printed.count("called '*vision*'") == 1


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    configure: Configure, tmp_path: Path, llama: Path
) -> None:
    sizes = {**json.loads((llama / "config.json").read_text()), "vocab_size": 100}
    model = {"pretrained_model_name_or_path": None, "config": sizes}
    with pytest.raises(UsageError, match="259 tokens, the model has embeddings for 100"):
        build(configure(model=model), tmp_path, llama)


def test_a_model_that_is_overwritten_on_disk_stays_what_it_is_in_a_run(
    configure: Configure, tmp_path: Path, llama: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(llama, copy)
    model = {"pretrained_model_name_or_path": str(copy)}
    state = build(configure(model=model), tmp_path, copy, init_optimizer=False)
    before = setup_reference_model_state(state.model)
    file = copy / "model.safetensors"
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(b"\x40" * 4096)
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_weights_that_are_missing_are_not_made_up(
    configure: Configure, tmp_path: Path, llama: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(llama, broken)
    settings = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 3}))
    with pytest.raises(UsageError, match=r"lacks .* weights"):
        build(configure(model={"pretrained_model_name_or_path": str(broken)}), tmp_path, llama)


def test_a_file_of_weights_that_is_cut_off_is_named(
    configure: Configure, tmp_path: Path, llama: Path
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(llama, cut)
    os.truncate(cut / "model.safetensors", 3000)
    with pytest.raises(UsageError, match=r"'.*cut' cannot be loaded: .*header"):
        build(configure(model={"pretrained_model_name_or_path": str(cut)}), tmp_path, llama)


def test_a_folder_that_is_not_there_is_not_taken_for_a_hub_id(configure: Configure) -> None:
    with pytest.raises(UsageError, match="there is no such folder"):
        validate_and_prepare_config(
            configure(model={"pretrained_model_name_or_path": "./nowhere"}), None, 0
        )


def test_frozen_towers_are_left_untrained() -> None:
    model = nn.ModuleDict(
        {name: nn.Linear(2, 2) for name in ("vision_tower", "audio_tower", "language_model")}
    )
    freeze(model, FreezeConfig())  # type: ignore[arg-type]  # any module has modules
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"language_model.weight", "language_model.bias"}
    freeze(model, FreezeConfig(language_model=True))  # type: ignore[arg-type]
    assert not any(p.requires_grad for p in model.parameters())


def test_a_reference_keeps_the_weights_as_they_were(llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    reference = setup_reference_model_state(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert reference.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert reference[name].device.type == "cpu"
        torch.testing.assert_close(reference[name] + 1, tensor)
