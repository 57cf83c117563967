"""Which linear layers of an architecture can be adapted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunedeck.core.errors import UsageError
from tunedeck.core.schema.adapter import LoraConfig
from tunedeck.trainer.model.targets import target_modules

from .helpers import SIZES


def made(kind: str, **sizes: Any) -> Any:
    """A model without weights."""
    config = AutoConfig.for_model(kind, **{**SIZES, "vocab_size": 256, **sizes})
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("kind", "sizes", "left_out"),
    [
        # The kernel of its layers reads the weight itself.
        ("mamba", {"state_size": 8}, "out_proj"),
        # It gives more than one tensor.
        ("phimoe", EXPERTS, "router"),
        # PEFT would look for their adapters under another name.
        ("laguna", EXPERTS, "shared_experts.up_proj"),
    ],
)
def test_layers_that_peft_cannot_adapt_are_left_out_and_refused_by_name(
    kind: str, sizes: dict[str, Any], left_out: str
) -> None:
    model = made(kind, **sizes)
    assert any(name.endswith(left_out) for name, _ in model.named_modules())
    chosen = target_modules(model, LoraConfig(match_all_linear=True))
    assert chosen
    assert not any(f".{left_out}".endswith(f".{name}") for name in chosen)
    assert not any(name.endswith(left_out) for name in chosen)
    with pytest.raises(UsageError, match=f"'{left_out}' names layers that PEFT cannot adapt"):
        target_modules(model, LoraConfig(target_modules=(left_out,)))
