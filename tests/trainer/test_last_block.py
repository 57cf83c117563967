from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from tunedeck.trainer.data.batches import Batch
from tunedeck.trainer.model.activation_checkpointing import checkpoint_activations
from tunedeck.trainer.model.attention import DOCUMENTS
from tunedeck.trainer.model.lean import use_lean_functions
from tunedeck.trainer.update.loss import SupervisedLoss

from .helpers import SIZES
from .test_attention import batch_of, documents


def taken(model: Any, batch: Batch) -> tuple[float, dict[str, Tensor], list[tuple[str, int]]]:
    """Loss, gradients, and how many positions asked, or were fed forward, in each layer."""
    seen: list[tuple[str, int]] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        name = "asked" if module in asking else "fed"
        seen.append((name, inputs[0].shape[:-1].numel()))

    asking = [layer.self_attn.q_proj for layer in model.model.layers]
    for module in (*asking, *(layer.mlp for layer in model.model.layers)):
        module.register_forward_pre_hook(count)
    loss = SupervisedLoss(model)(batch)
    counted = list(seen)
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, counted


@pytest.mark.parametrize("in_line", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "mixtral", "gemma2"])
@pytest.mark.parametrize("again", [False, True])
def test_the_last_block_computes_for_supervised_positions_alone(
    kind: str, in_line: bool, again: bool, models_of: Callable[[str], Path]
) -> None:
    plain: Any = AutoModelForCausalLM.from_pretrained(
        models_of(kind), dtype=torch.float32, attn_implementation=DOCUMENTS
    ).train()
    model = copy.deepcopy(plain)
    use_lean_functions(model)
    if again:
        checkpoint_activations(model, True)
    batch = batch_of(documents(), in_line=in_line)
    expected, gradients, before = taken(plain, batch)
    loss, own, after = taken(model, batch)
    places, supervised = batch.input_ids.numel(), batch.targets.numel()
    assert supervised < places
    everywhere = [("asked", places), ("fed", places)]
    assert before == everywhere * 2
    # Blocks of other code are left alone; those that run again could not choose a second time.
    others = again or kind in ("gemma2", "mixtral")
    # So is attention of other code.
    asked = supervised if kind == "llama" and in_line else places
    assert after == everywhere + (everywhere if others else [("asked", asked), ("fed", supervised)])
    assert loss == pytest.approx(expected, rel=1e-6)
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-4, msg=name)


def test_blocks_that_take_turns_compute_for_every_position() -> None:
    torch.manual_seed(0)
    sizes = {**SIZES, "num_key_value_heads": 4, "vocab_size": 260, "num_layers_per_stack": 1}
    config = AutoConfig.for_model("hrm_text", **sizes, H_cycles=2, L_cycles=1, head_dim=8)
    plain: Any = AutoModelForCausalLM.from_config(config, attn_implementation=DOCUMENTS)
    model = copy.deepcopy(plain)
    assert use_lean_functions(model)
    batch = batch_of(documents(), in_line=True)
    found, expected = (SupervisedLoss(one)(batch).item() for one in (model, plain))
    assert found == pytest.approx(expected, rel=1e-6)


def test_outside_of_a_loss_all_positions_are_computed(llama: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    use_lean_functions(model)
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    SupervisedLoss(model)(batch_of(documents(), in_line=False))
    assert torch.equal(model(input_ids=ids).logits, before)


def test_a_hook_on_the_last_attention_is_called(llama: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(
        llama, dtype=torch.float32, attn_implementation=DOCUMENTS
    )
    use_lean_functions(model)
    batch = batch_of(documents(), in_line=True)
    expected, called = SupervisedLoss(model)(batch), []
    model.model.layers[-1].self_attn.register_forward_hook(lambda *_: called.append(1))
    torch.testing.assert_close(SupervisedLoss(model)(batch), expected)
    assert called == [1]
