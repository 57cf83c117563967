from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from transformers import AutoModelForCausalLM

from tunedeck.core.errors import UsageError
from tunedeck.trainer.model.activation_checkpointing import checkpoint_activations


@pytest.mark.parametrize("scope", [True, "selective"])
def test_a_block_runs_again_in_the_backward_pass_and_gives_the_same_gradients(
    scope: Literal[True, "selective"], llama: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).train()
    ids = torch.tensor([[5, 6, 7, 8]])
    model(input_ids=ids, use_cache=False).logits.sum().backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()
    runs = []
    model.model.layers[0].mlp.act_fn.register_forward_hook(lambda *_: runs.append(1))
    checkpoint_activations(model, scope)
    model(input_ids=ids, use_cache=False).logits.sum().backward()
    assert len(runs) == 2
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_a_model_whose_blocks_run_once_is_refused(llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    model.supports_gradient_checkpointing = False
    with pytest.raises(UsageError, match="activation checkpointing"):
        checkpoint_activations(model, True)
