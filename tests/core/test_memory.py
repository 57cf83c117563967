"""The memory estimate, against the parameters of real architectures."""

from __future__ import annotations

from typing import Any

import pytest

from tunedeck.core.memory import GIB, ModelShape, estimate, what_would_fit

LLAMA_8B = {
    "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336,
    "vocab_size": 128256, "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip


def _config(**tables: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "model": {"torch_dtype": "bfloat16"},
        "distributed": {"strategy": "fsdp2", "tp_size": 1, "cp_size": 1},
        "peft": None,
        "packed_sequence": {"packed_sequence_size": 0},
        "dataset": {"seq_length": 4096},
        "step_scheduler": {"local_batch_size": 1},
    }
    return base | tables


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma2", "mixtral", "qwen3_moe"])
def test_parameters_are_those_of_the_real_model(kind: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    experts = {"moe_intermediate_size": 128} if kind == "qwen3_moe" else {}
    config = AutoConfig.for_model(
        kind, hidden_size=256, num_hidden_layers=3, intermediate_size=512, vocab_size=4096,
        num_attention_heads=8, num_key_value_heads=4, head_dim=32, **experts,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    real = sum({id(p): p.numel() for p in model.parameters()}.values())
    shape = ModelShape.from_config(config.to_dict())
    assert shape is not None
    assert shape.parameters == pytest.approx(real, rel=0.01)


def test_a_config_of_another_kind_of_model_gives_no_estimate() -> None:
    assert ModelShape.from_config({"d_model": 512}) is None


@pytest.mark.parametrize(("peft", "trained"), [(None, 8.03e9), ({"dim": 16}, 0.042e9)])
def test_what_is_trained_is_float32_where_the_format_is_left_to_the_gpu(
    peft: dict[str, Any] | None, trained: float
) -> None:
    shape = ModelShape.from_config(LLAMA_8B)
    assert shape is not None
    auto, half = (
        estimate(_config(model={"torch_dtype": name}, peft=peft), shape, 1)
        for name in ("auto", "bfloat16")
    )
    assert auto.gradients == pytest.approx(4 * trained, rel=0.01)
    assert auto.optimizer == 2 * auto.gradients
    assert auto.activations == half.activations
    frozen = 2 * shape.parameters if peft else 0
    assert auto.weights == pytest.approx(frozen + 4 * trained, rel=0.01)


def test_full_training_of_8b_needs_more_than_one_80_gib_gpu_and_lora_fits() -> None:
    shape = ModelShape.from_config(LLAMA_8B)
    assert shape is not None
    assert shape.parameters == pytest.approx(8.03e9, rel=0.001)
    assert estimate(_config(), shape, 1).total > 80 * GIB
    lora = _config(
        peft={"dim": 16}, distributed={"strategy": "fsdp2", "activation_checkpointing": True}
    )
    assert estimate(lora, shape, 1).total < 40 * GIB


def test_sharding_divides_weights_gradients_and_optimizer_by_the_ranks() -> None:
    shape = ModelShape.from_config(LLAMA_8B)
    assert shape is not None
    one, eight = estimate(_config(), shape, 1), estimate(_config(), shape, 8)
    assert eight.weights == pytest.approx(one.weights / 8)
    assert eight.optimizer == pytest.approx(one.optimizer / 8)
    assert eight.activations == one.activations


def test_the_advice_names_a_change_under_which_the_estimate_fits() -> None:
    shape = ModelShape.from_config(LLAMA_8B)
    assert shape is not None
    words = what_would_fit(_config(model={"torch_dtype": "auto"}), shape, 1, 80 * GIB)
    assert "peft=lora" in words
    assert "GPUs" in what_would_fit(_config(), shape, 1, 8 * GIB)
