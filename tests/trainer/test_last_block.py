from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tunedeck.trainer.data.batches import Batch
from tunedeck.trainer.model.activation_checkpointing import checkpoint_activations
from tunedeck.trainer.model.attention import DOCUMENTS
from tunedeck.trainer.model.lean import use_lean_functions
from tunedeck.trainer.update.loss import SupervisedLoss

from .test_attention import batch_of, documents


def taken(model: Any, batch: Batch) -> tuple[float, dict[str, Tensor], list[int]]:
    """Loss, gradients, and how many positions each feed-forward layer computed."""
    seen: list[int] = []
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].shape[:-1].numel())
        )
    loss = SupervisedLoss(model)(batch)
    counted = list(seen)
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients, counted


@pytest.mark.parametrize("in_line", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "mixtral", "gemma2"])
@pytest.mark.parametrize("again", [False, True])
def test_the_last_feed_forward_layer_sees_supervised_positions_alone(
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
    assert before == [places, places]
    # Blocks of other code are left alone; those that run again could not choose a second time.
    others = again or kind in ("gemma2", "mixtral")
    assert after == [places, places if others else supervised]
    assert loss == pytest.approx(expected, rel=1e-6)
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-4, msg=name)


def test_outside_of_a_loss_all_positions_are_computed(llama: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    use_lean_functions(model)
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    SupervisedLoss(model)(batch_of(documents(), in_line=False))
    assert torch.equal(model(input_ids=ids).logits, before)
