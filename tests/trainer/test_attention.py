from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.model import ModelConfig
from tunedeck.trainer.data.assemble import layout_of
from tunedeck.trainer.data.batches import Batch, Layout
from tunedeck.trainer.data.rows import TokenRow
from tunedeck.trainer.model import build
from tunedeck.trainer.model.attention import (
    DOCUMENTS,
    attends_by_document,
    document_attention,
    keeps_rows_apart,
)
from tunedeck.trainer.model.build import attention_of, default_attention
from tunedeck.trainer.model.kinds import Kind, class_of
from tunedeck.trainer.update.loss import SupervisedLoss

from .helpers import KINDS, SIZES

LENGTHS = (40, 1, 23, 5, 64)


def documents(seed: int = 0) -> list[TokenRow]:
    draw = np.random.default_rng(seed)
    made = []
    for length in (*LENGTHS, 2):
        trained = (draw.random(length) < 0.5).astype(np.uint8)
        trained[-1] = 1
        if length > 1:
            made.append(TokenRow(draw.integers(3, 250, length, dtype=np.int32), trained))
    return made


def batch_of(rows: list[TokenRow], *, in_line: bool) -> Batch:
    return Layout(0, in_line).batch(rows, range(len(rows)), len(rows))


def loss_and_gradients(
    folder: Path, attention: str | None, batch: Batch
) -> tuple[float, dict[str, torch.Tensor]]:
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention
    )
    loss = SupervisedLoss(model)(batch) / batch.targets.numel()
    loss.backward()
    named = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), named


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", [DOCUMENTS, "eager"])
def test_packed_rows_have_the_loss_and_gradients_of_rows_apart(
    kind: str, attention: str, models_of: Callable[[str], Path]
) -> None:
    rows = documents()
    expected, gradients = loss_and_gradients(
        models_of(kind), "eager", batch_of(rows, in_line=False)
    )
    packed = batch_of(rows, in_line=True)
    assert packed.padding == 0
    found, of_packed = loss_and_gradients(models_of(kind), attention, packed)
    assert found == pytest.approx(expected, abs=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(of_packed[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_does_not_feel_its_neighbours(
    kind: str, models_of: Callable[[str], Path]
) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(
        models_of(kind), dtype=torch.float32, attn_implementation=DOCUMENTS
    )
    loss = SupervisedLoss(model)
    rows, others = documents(), documents(seed=1)
    mine = rows[2]
    alone = loss(batch_of([mine], in_line=True)).item()
    for neighbours in (rows, others):
        around = loss(batch_of([*neighbours[:2], mine, *neighbours[3:]], in_line=True)).item()
        without = loss(batch_of([*neighbours[:2], *neighbours[3:]], in_line=True)).item()
        assert around - without == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}, {"s_aux": torch.tensor([0.5, -1.0])}])
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("width", [8, 6])
def test_it_is_softmax_attention_written_out(
    options: dict[str, Any], window: int | None, width: int
) -> None:
    torch.manual_seed(0)
    query = torch.randn(1, 2, sum(LENGTHS), 8)
    key, value = (torch.randn(1, 1, sum(LENGTHS), wide) for wide in (8, width))
    bounds = torch.tensor([0, *LENGTHS]).cumsum(0)
    found, _ = document_attention(
        torch.nn.Identity(),
        query,
        key,
        value,
        None,
        cu_seq_lens_q=bounds.int(),
        sliding_window=window,
        **options,
    )
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        for head in range(2):
            for at in range(start, end):
                first = start if window is None else max(start, at - window + 1)
                scores = key[0, 0, first : at + 1] @ query[0, head, at] / 8**0.5
                if softcap := options.get("softcap"):
                    scores = softcap * torch.tanh(scores / softcap)
                weights = scores.exp()
                total = weights.sum()
                if (sinks := options.get("s_aux")) is not None:
                    total = total + sinks[head].exp()
                expected = weights @ value[0, 0, first : at + 1] / total
                torch.testing.assert_close(found[0, at, head], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_is_that_of_the_model_alone(kind: str, models_of: Callable[[str], Path]) -> None:
    prompts = torch.randint(3, 250, (2, 30), generator=torch.Generator().manual_seed(0))
    padded = torch.ones_like(prompts)
    padded[0, :9] = 0
    answers = []
    for attention in (DOCUMENTS, "eager"):
        model: Any = AutoModelForCausalLM.from_pretrained(
            models_of(kind), dtype=torch.float32, attn_implementation=attention
        )
        answers.append(
            model.generate(prompts, attention_mask=padded, max_new_tokens=12, do_sample=False)
        )
    assert torch.equal(*answers)


def test_the_attention_of_a_run_is_not_written_into_its_model(llama: Path, tmp_path: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(llama, attn_implementation=DOCUMENTS)
    model.save_pretrained(tmp_path)
    assert DOCUMENTS not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(
    ("kind", "sizes", "wanted"),
    [
        ("llama", {}, True),
        ("gpt_oss", {"layer_types": ["sliding_attention", "full_attention"]}, True),
        ("mamba2", {"num_heads": 8, "head_dim": 8}, False),
        ("nemotron", {"num_attention_heads": 4}, False),
        ("doge", {}, False),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, False),
    ],
)
def test_only_models_of_attention_alone_take_documents(
    kind: str, sizes: dict[str, Any], wanted: bool
) -> None:
    config = AutoConfig.for_model(kind, hidden_size=32, num_hidden_layers=2, **sizes)
    assert attends_by_document(class_of(Kind.TEXT, config, remote=False), config) is wanted


@pytest.mark.parametrize(
    ("kind", "apart"),
    [("gptj", True), ("nemotron", True), ("doge", True), ("mpt", False), ("falcon", False)],
)
def test_rows_share_a_sequence_only_where_they_do_not_see_each_other(
    kind: str, apart: bool
) -> None:
    torch.manual_seed(0)
    names = {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 8, "n_positions": 256}
    longer = {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256}
    sizes = {**SIZES, "num_key_value_heads": 4, "vocab_size": 260, **names, **longer}
    config = AutoConfig.for_model(kind, **sizes)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for weight in model.parameters():
        weight.data.mul_(3)  # So that what another row adds is seen.
    loss, rows = SupervisedLoss(model), documents()
    together = loss(batch_of(rows, in_line=True)).item()
    alone = sum(loss(batch_of([row], in_line=False)).item() for row in rows)
    assert (together == pytest.approx(alone, rel=1e-5)) is apart
    assert keeps_rows_apart(type(model), config) is apart


@pytest.mark.parametrize("alibi", [True, False])
def test_biases_of_attention_are_not_left_out(alibi: bool) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "falcon",
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        alibi=alibi,
        new_decoder_architecture=False,
    )
    exact: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for weight in exact.parameters():
        weight.data.mul_(3)
    kernel = default_attention(type(exact), config)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation=kernel).eval()
    model.load_state_dict(exact.state_dict())
    ids = torch.arange(48).view(2, 24)
    torch.testing.assert_close(model(ids).logits, exact(ids).logits, rtol=1e-4, atol=1e-5)
    if alibi:
        with pytest.raises(UsageError, match="leaves out the biases of 'falcon'"):
            attention_of(
                ModelConfig(config="folder", attn_implementation="sdpa"), type(exact), config
            )


@pytest.mark.parametrize(
    ("kind", "kernel"), [("gemma2", "sdpa"), ("gptj", "sdpa"), ("mpt", "flash_attention_2")]
)
def test_a_kernel_that_does_not_compute_an_architecture_is_refused(
    kind: str, kernel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "is_flash_attn_2_available", lambda **_: True)
    config = AutoConfig.for_model(kind)
    model_class = class_of(Kind.TEXT, config, remote=False)
    with pytest.raises(UsageError, match=f"{kernel} does not compute '{kind}'"):
        attention_of(ModelConfig(config="folder", attn_implementation=kernel), model_class, config)


@pytest.mark.parametrize("known", [True, False])
def test_flash_attention_alone_does_not_put_rows_in_one_line(
    known: bool, configure: Callable[..., TrainConfig]
) -> None:
    runtime: Any = SimpleNamespace(
        allow_flash_attn_args=known, attn_impl="flash_attention_2", enable_seq_packing=False
    )
    runtime.model_config = AutoConfig.for_model("llama")
    chat: Any = SimpleNamespace(pad_id=0)
    assert layout_of(configure(), chat, runtime).in_line is known
