"""Layer names told without torch, against the modules that transformers builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.layer_names import _KINDS, layer_names

SIZES = {
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 40},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "pad_token_id": 0},
}


@pytest.fixture(params=sorted(_KINDS))
def model(request: pytest.FixtureRequest) -> Any:
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        config = AutoConfig.for_model(request.param, **SIZES)
        return AutoModelForCausalLM.from_config(config)


def linear_layers(model: Any) -> set[str]:
    from torch import nn

    return {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def weighty(model: Any) -> set[str]:
    """What the modules that hold weights are called."""
    names = (
        name for name, module in model.named_modules() if any(True for _ in module.parameters())
    )
    return {name.rpartition(".")[2] for name in names if name}


def test_an_architecture_alone_tells_its_layers(model: Any) -> None:
    found = layer_names(model.config.to_dict(), None)
    assert found is not None and found.certain
    assert set(found.linear) == linear_layers(model)
    assert weighty(model) <= found.modules


def test_the_headers_of_the_weights_tell_them(model: Any, tmp_path: Path) -> None:
    model.to_empty(device="cpu").save_pretrained(tmp_path, max_shard_size="10kB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    found = layer_names(json.loads((tmp_path / "config.json").read_text()), tmp_path)
    assert found is not None and found.certain
    assert set(found.linear) == linear_layers(model)
    assert weighty(model) <= found.modules


def test_where_names_may_change_on_loading_none_is_certain(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    save_file({"h.0.attn.c_attn.weight": torch.zeros(2, 6)}, tmp_path / "model.safetensors")
    for kind in ("gpt2", "llama"):
        found = layer_names({"model_type": kind}, tmp_path)
        assert found is not None and not found.certain
        assert found.linear == ("h.0.attn.c_attn", "lm_head")


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 8, b"\2\0\0\0\0\0\0\0[]"])
def test_files_that_are_no_weights_tell_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert layer_names({"model_type": "unheard"}, tmp_path) is None
