"""The host waits for no GPU within a step: nothing on the device is read.

The device is `meta`, which knows formats and shapes and has no values: reading one, or a shape that
depends on one, is an error there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tunedeck.core.schema.adapter import LoraConfig
from tunedeck.core.schema.model import ModelConfig
from tunedeck.core.schema.optimization import OptimizerConfig
from tunedeck.trainer.data.batches import Batch, Layout
from tunedeck.trainer.model import flex
from tunedeck.trainer.model.activation_checkpointing import checkpoint_activations
from tunedeck.trainer.model.attention import DOCUMENTS, SHARED
from tunedeck.trainer.model.lora import add_adapter
from tunedeck.trainer.parallel.sequences import SharedSequences
from tunedeck.trainer.update import loss
from tunedeck.trainer.update.finite import UpdateGuard
from tunedeck.trainer.update.loss import SupervisedLoss
from tunedeck.trainer.update.optim import build_optimizer
from tunedeck.trainer.update.step import StepResult, train_step

from .helpers import KINDS, SIZES
from .test_attention import documents

META = torch.device("meta")


def _flex(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:
    assert options["block_mask"].kv_indices.is_meta
    mixed = query + (key.sum() + value.sum())
    return mixed if options["return_aux"] is None else (mixed, None)


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU of shapes and formats alone."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: self.device == META))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(flex, "_has_triton", lambda: True)
    monkeypatch.setattr(flex, "_SMALLEST_HEAD", 8)
    monkeypatch.setattr(flex, "_kernel", lambda: _flex)
    # Torch knows none of these there; all are for CUDA.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(loss.torch, "autocast", lambda *_, **__: nullcontext())
    adam = sys.modules["torch.optim.adam"]  # the package has a function of that name
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda *_, **__: None)
    yield
    monkeypatch.undo()


def model_of(kind: str, attention: str = DOCUMENTS) -> PreTrainedModel:
    with META:
        config = AutoConfig.for_model(kind, **{**SIZES, "vocab_size": 300, **KINDS[kind]})
        made: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention
        )
    return made


def micro_batches() -> list[Batch]:
    rows = documents()
    made = Layout(0, in_line=True, sources=2, multiple=64).batch(rows, range(len(rows)), len(rows))
    return [made, made]


def step(
    model: PreTrainedModel, batches: list[Batch], shared: SharedSequences | None = None
) -> StepResult:
    optimizer = build_optimizer(model, OptimizerConfig())
    loss_sum = SupervisedLoss(model, sources=2, shared=shared)
    result = train_step(
        loss_sum,
        optimizer,
        batches,
        guard=UpdateGuard(optimizer, META),
        max_grad_norm=1.0,
        stopping=lambda: False,
        device=META,
    )
    assert result is not None
    sums = loss_sum.take_sources()
    assert sums is not None and sums.is_meta
    return result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [False, True])
def test_a_step_reads_nothing_from_the_device(kind: str, lora: bool) -> None:
    model = model_of(kind)
    if lora:
        with META:
            add_adapter(model, LoraConfig(dim=4, alpha=8), ModelConfig(config={"model_type": kind}))
    result = step(model, micro_batches())
    assert result.loss.is_meta and result.loss.dtype == torch.float32
    assert result.grad_norm.is_meta and result.grad_norm.dtype == torch.float32
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    assert trained == {torch.float32 if lora else torch.bfloat16}


@pytest.mark.parametrize("scope", [True, "selective"])
def test_nor_does_one_that_computes_activations_again(scope: Any) -> None:
    model = model_of("llama")
    checkpoint_activations(model, scope)
    assert step(model, micro_batches()).loss.is_meta


def test_nor_does_one_of_ranks_that_share_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two:
        """The first of two ranks."""

        def size(self) -> int:
            return 2

        def rank(self) -> int:
            return 0

    shared = SharedSequences(Two())  # type: ignore[arg-type]
    monkeypatch.setattr(SharedSequences, "current", shared)
    monkeypatch.setattr(
        SharedSequences, "_gathered", lambda _, states: torch.cat([states, states], dim=2)
    )
    assert step(model_of("llama", SHARED), micro_batches(), shared).loss.is_meta


def test_what_reads_a_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Callable[..., Any] = loss.token_losses

    def curious(logits: Tensor, targets: Tensor) -> Any:
        assert logits.isfinite().all()
        return original(logits, targets)

    monkeypatch.setattr(loss, "token_losses", curious)
    with pytest.raises(RuntimeError, match="meta"):
        step(model_of("llama"), micro_batches())
