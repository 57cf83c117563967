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


SIZES: dict[str, Any] = {
    "hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 512, "vocab_size": 4096,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32,
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "qwen3": ("qwen3", {}),
    "mistral": ("mistral", {}),
    "gemma2": ("gemma2", {}),
    "mixtral": ("mixtral", {}),
    "qwen3_moe": ("qwen3_moe", {"moe_intermediate_size": 128}),
    "some dense layers": (
        "qwen3_moe",
        {"moe_intermediate_size": 128, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    ),
    "a shared expert": (
        "qwen2_moe",
        {"moe_intermediate_size": 128, "shared_expert_intermediate_size": 384},
    ),
    "a dense beginning": (
        "glm4_moe",
        {
            "moe_intermediate_size": 128,
            "n_routed_experts": 8,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
        },
    ),
}


def built(name: str) -> Any:
    """A model without values, and its shape."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, options = KINDS[name]
    config = AutoConfig.for_model(kind, **{**SIZES, **options})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return model, ModelShape.from_config(config.to_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_parameters_are_those_of_the_real_model(name: str) -> None:
    model, shape = built(name)
    real = sum({id(p): p.numel() for p in model.parameters()}.values())
    assert shape.parameters == pytest.approx(real, rel=0.005)
    largest = max(sum(p.numel() for p in layer.parameters()) for layer in model.model.layers)
    assert shape.layer_parameters == pytest.approx(largest, rel=0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_parameters_of_an_adapter_are_those_that_are_trained(name: str) -> None:
    from tunedeck.core.schema.adapter import LoraConfig
    from tunedeck.core.schema.model import ModelConfig
    from tunedeck.trainer.model.lora import add_adapter
    from tunedeck.trainer.parallel.meta import stand_ins

    model, shape = built(name)
    with stand_ins(model):
        add_adapter(model, LoraConfig(dim=6), ModelConfig(config={"model_type": "llama"}))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if name in ("some dense layers", "a dense beginning"):
        # PEFT takes the names of their dense layers for experts.
        assert shape.adapter_parameters(6) > trained > 0
    else:
        assert shape.adapter_parameters(6) == trained


def test_offloading_moves_what_is_sharded_and_leaves_a_layer_or_two() -> None:
    shape = ModelShape.from_config(LLAMA_8B)
    assert shape is not None
    mesh = {"strategy": "fsdp2", "tp_size": 1, "cp_size": 1}
    here = estimate(_config(distributed=mesh), shape, 4)
    there = estimate(_config(distributed={**mesh, "cpu_offload": True}), shape, 4)
    assert (there.weights, there.gradients, there.optimizer) == (0, 0, 0)
    assert there.offloaded == here.weights + here.gradients + here.optimizer
    assert there.gathered == here.gathered
    assert there.total == pytest.approx(here.total - there.offloaded)
    assert "in main memory" in str(there) and "in main memory" not in str(here)
    two_layers_and_head = 2 * shape.layer_parameters + 128256 * 4096
    assert here.gathered == 2 * two_layers_and_head
    assert estimate(_config(distributed=mesh), shape, 1).gathered == 0


def test_ranks_that_share_the_experts_gather_their_part_of_them() -> None:
    shape = ModelShape.from_config({**LLAMA_8B, "num_local_experts": 8, "num_experts_per_tok": 2})
    assert shape is not None
    mesh = {"strategy": "fsdp2", "tp_size": 1, "cp_size": 1}
    one, four = (
        estimate(_config(distributed={**mesh, "ep_size": ep}), shape, 8).gathered for ep in (1, 4)
    )
    assert one - four == pytest.approx(2 * 2 * shape.expert_parameters * 3 / 4)


def test_a_token_goes_through_the_experts_that_it_is_dealt_to() -> None:
    mixed = {"num_experts": 64, "num_experts_per_tok": 4, "moe_intermediate_size": 1024}
    shapes = [ModelShape.from_config({**LLAMA_8B, **more}) for more in ({}, mixed)]
    dense, experts = (
        estimate(_config(), shape, 1).activations for shape in shapes if shape is not None
    )
    assert experts / dense == pytest.approx((10 * 4096 + 4 * 4096) / (10 * 4096 + 4 * 14336))


def test_four_and_eight_bits_are_counted_as_such() -> None:
    shape = ModelShape.from_config(LLAMA_8B)
    assert shape is not None
    table = 2 * 128256 * 4096
    for name, size in (("nf4", 0.5), ("int8", 1.0)):
        quantized = estimate(_config(peft={"dim": 8, "quantization": name}), shape, 1)
        adapters = 4 * shape.adapter_parameters(8)
        expected = 2 * table + size * (shape.parameters - table) + adapters
        assert quantized.weights == pytest.approx(expected, rel=0.02)
        # Each process has all of the base, and gathers nothing of it.
        spread = estimate(_config(peft={"dim": 8, "quantization": name}), shape, 8)
        assert spread.weights == pytest.approx(quantized.weights - adapters * 7 / 8)
        assert spread.optimizer == pytest.approx(quantized.optimizer / 8)
        assert spread.gathered == 0
    small = estimate(_config(optimizer={"name": "adamw8bit"}), shape, 1)
    assert small.optimizer == 2 * shape.parameters


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


def test_where_the_shards_alone_are_too_much_main_memory_is_advised() -> None:
    shape = ModelShape.from_config(LLAMA_8B)
    assert shape is not None
    words = what_would_fit(_config(), shape, 2, 24 * GIB)
    assert "distributed.cpu_offload=true" in words and "peft" not in words
