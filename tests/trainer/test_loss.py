from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from tunedeck.core.schema import TrainConfig
from tunedeck.trainer.data.assemble import layout_of
from tunedeck.trainer.data.batches import Batch
from tunedeck.trainer.model.attention import DOCUMENTS
from tunedeck.trainer.update.finite import UpdateGuard
from tunedeck.trainer.update.loss import SupervisedLoss
from tunedeck.trainer.update.step import train_step

from .helpers import KINDS, SIZES
from .test_attention import documents


def batch_of(rows: list[list[int]], trained: list[list[int]]) -> Batch:
    width = max(map(len, rows))
    input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    positions, targets = [], []
    for line, (row, marks) in enumerate(zip(rows, trained, strict=True)):
        input_ids[line, : len(row)] = torch.tensor(row)
        for at in marks:
            positions.append(line * width + at - 1)
            targets.append(row[at])
    return Batch(
        input_ids,
        torch.tensor(positions),
        torch.tensor(targets),
        sum(map(len, rows)),
        tuple(range(len(rows))),
    )


ROWS = [[5, 6, 7, 8, 9, 10, 11], list(range(20, 60)), [4, 3, 2]]
TRAINED = [[3, 4, 6], list(range(25, 40)), [2]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_equals_that_of_all_logits_row_by_row(
    kind: str, models_of: Callable[[str], Path]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(models_of(kind), dtype=torch.float32)
    expected = torch.zeros(())
    for row, marks in zip(ROWS, TRAINED, strict=True):
        logits = model(input_ids=torch.tensor([row])).logits[0]
        for at in marks:
            expected = expected + F.cross_entropy(logits[at - 1], torch.tensor(row[at]))
    expected.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    loss = SupervisedLoss(model)(batch_of(ROWS, TRAINED))
    loss.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_generation_sees_the_logits_of_every_position(llama: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits
    loss = SupervisedLoss(model)
    loss(batch_of(ROWS, TRAINED))
    assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.parametrize("share", [None, 0.25, 4.0])
def test_gradients_over_the_limit_are_scaled_down_to_it_and_no_others(
    share: float | None, llama: Path
) -> None:
    """By the change that gradient descent at a rate of one makes of them."""

    def take(limit: float | None) -> tuple[float, float]:
        """The norm that is told, and that of the change."""
        model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        device = torch.device("cpu")
        result = train_step(
            SupervisedLoss(model),
            optimizer,
            [batch_of(ROWS, TRAINED)],
            guard=UpdateGuard(optimizer, device),
            max_grad_norm=limit,
            stopping=lambda: False,
            device=device,
        )
        assert result is not None
        pairs = zip(before, model.parameters(), strict=True)
        changes = [(old - new.detach()).norm() for old, new in pairs]
        return result.grad_norm.item(), torch.stack(changes).norm().item()

    norm, change = take(None)
    assert change == pytest.approx(norm, rel=1e-3)
    if share is not None:
        told, change = take(share * norm)
        assert told == pytest.approx(norm)
        assert change == pytest.approx(min(share, 1.0) * norm, rel=1e-3)


def test_what_fills_a_line_up_leaves_gradients_finite(
    configure: Callable[..., TrainConfig],
) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "gemma3n_text",
        **{
            **SIZES,
            "num_hidden_layers": 4,
            "vocab_size": 260,
            "pad_token_id": 0,
            "intermediate_size": [64] * 4,
        },
        layer_types=["sliding_attention", "full_attention"] * 2,
        num_kv_shared_layers=2,
        activation_sparsity_pattern=[0.95, 0.0, 0.0, 0.0],
        laurel_rank=8,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=260,
    )
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=DOCUMENTS)
    runtime: Any = SimpleNamespace(
        enable_seq_packing=False, allow_flash_attn_args=True, attn_impl=DOCUMENTS
    )
    runtime.model_config = config
    chat: Any = SimpleNamespace(pad_id=0)
    batch = layout_of(configure(), chat, runtime).batch(documents(), range(len(documents())), 1)
    assert batch.padding
    SupervisedLoss(model)(batch).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
