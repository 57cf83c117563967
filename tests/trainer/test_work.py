from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from tunedeck.core.schema.adapter import LoraConfig
from tunedeck.core.schema.model import ModelConfig
from tunedeck.trainer.data.batches import Batch, Layout
from tunedeck.trainer.model.lora import add_adapter
from tunedeck.trainer.model.work import Work
from tunedeck.trainer.reporting.peak import peak_flops, peak_of
from tunedeck.trainer.update.loss import SupervisedLoss

from .test_attention import documents


def model_of(folder: Path, lora: dict[str, Any] | None = None) -> Any:
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    if lora is not None:
        name = ModelConfig(pretrained_model_name_or_path=str(folder))
        add_adapter(model, LoraConfig(dim=4, alpha=8, **lora), name)
    return model


def one_row(length: int = 64) -> Batch:
    """A row of which every token is computed and the last one's logits are not."""
    row = next(row for row in documents() if len(row.input_ids) == length)
    row.trained[:] = 1
    return Layout(0, in_line=True).batch([row], [0], 1)


def without_attention(model: Any, batch: Batch) -> int:
    """What torch counts of the products that are no attention between tokens."""
    with FlopCounterMode(display=False) as counter:
        SupervisedLoss(model)(batch).backward()
    products = counter.get_flop_counts()["Global"]
    return sum(count for kind, count in products.items() if kind is not torch.ops.aten.bmm)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_it_is_what_torch_counts_in_full_training(
    kind: str, models_of: Callable[[str], Path]
) -> None:
    model, batch = model_of(models_of(kind)), one_row()
    weights = Work(model)(batch._replace(lengths=(0,))) + Work(model)._token * 63
    assert weights == without_attention(model, batch)


def test_a_frozen_weight_costs_four_operations_a_token_and_a_trained_one_six(llama: Path) -> None:
    model, batch = model_of(llama, {}), one_row()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = model.lm_head.weight.numel()
    frozen = sum(p.numel() for p in model.parameters() if p.ndim >= 2 and not p.requires_grad)
    frozen -= head + model.get_input_embeddings().weight.numel()
    assert Work(model)._token == 4 * frozen + 6 * trained
    assert Work(model)._target == 4 * head
    # The first layer's input has no gradient, for which torch does not multiply either.
    weights = Work(model)(batch._replace(lengths=(0,))) + Work(model)._token * 63
    assert without_attention(model, batch) == pytest.approx(weights, rel=0.12)


def test_each_token_sees_its_own_document_as_far_as_the_window(
    models_of: Callable[[str], Path],
) -> None:
    for kind, window in (("llama", 10**9), ("mistral", 16), ("gemma2", None)):
        work = Work(model_of(models_of(kind)))
        lengths = (40, 1, 23)
        both = one_row()._replace(lengths=lengths, targets=torch.empty(0))
        plain = work._token * sum(lengths)
        seen = 0
        for layer in range(2):
            within = window or (16, 10**9)[layer % 2]
            for length in lengths:
                seen += sum(min(place + 1, within) for place in range(length))
        # Scores and values, 2 operations each, once forward and twice backward, for 4 heads of 8.
        assert work(both) - plain == 12 * 4 * 8 * seen


def test_documents_in_a_line_cost_what_they_cost_apart(llama: Path) -> None:
    work, layout, rows = Work(model_of(llama)), Layout(0, in_line=True, multiple=64), documents()
    line = layout.batch(rows, range(len(rows)), len(rows))
    assert line.padding
    assert work(line) == sum(work(layout.batch([row], [0], 1)) for row in rows)


def test_of_experts_only_the_chosen_ones_compute(models_of: Callable[[str], Path]) -> None:
    model = model_of(models_of("mixtral"))
    experts = sum(p.numel() for p in model.parameters() if p.ndim == 3)
    tables = 2 * model.get_input_embeddings().weight.numel()
    rest = sum(p.numel() for p in model.parameters() if p.ndim == 2) - tables
    chosen, there = model.config.num_experts_per_tok, model.config.num_local_experts
    assert 0 < chosen < there
    assert Work(model)._token == 6 * (rest + experts * chosen / there)


def test_what_cannot_be_counted_is_left_out(llama: Path) -> None:
    model, batch = model_of(llama), one_row()
    assert Work(model)(batch) > 0
    model.model.layers[0].experts = nn.Conv1d(4, 4, 4)
    assert Work(model)(batch) == 0


def test_a_copy_that_is_trained_counts_in_place_of_what_it_was_copied_from(llama: Path) -> None:
    plain, copied = model_of(llama, {}), model_of(llama, {"modules_to_save": ["lm_head"]})
    assert Work(copied)._token == Work(plain)._token
    assert Work(copied)._target == Work(plain)._target * 6 / 4


def test_a_weight_that_is_packed_counts_as_what_it_stands_for(llama: Path) -> None:
    model = model_of(llama)
    expected = Work(model)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not model.lm_head:
            packed = torch.zeros(module.weight.numel() // 2, 1, dtype=torch.uint8)
            module.weight = nn.Parameter(packed, requires_grad=False)
    assert Work(model)._token == expected._token * 4 / 6


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA A10", 125),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA B200", 2250),
        ("NVIDIA GB200", 2500),
        ("AMD Instinct MI300X", 1307),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("GRID A100D-20C", None),
        ("NVIDIA H1000", None),
        ("Tesla V100-SXM2-32GB", None),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_the_peak_of_a_card_that_is_known(name: str, tera: float | None) -> None:
    assert peak_of(name) == (None if tera is None else tera * 1e12)


def test_a_cpu_has_no_peak() -> None:
    assert peak_flops(torch.device("cpu")) is None
