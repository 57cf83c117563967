"""Attention as a GPU computes it, on a stand-in for one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import flex_attention
from transformers import AutoModelForCausalLM

from tunedeck.trainer.data.batches import Batch, Layout
from tunedeck.trainer.model import flex
from tunedeck.trainer.model.attention import DOCUMENTS, Within, document_attention
from tunedeck.trainer.parallel.sequences import SharedSequences, segments
from tunedeck.trainer.update.loss import SupervisedLoss

from .gpu_stand_in import stand_in
from .test_attention import documents

LENGTHS = [[40, 1, 23, 5, 64], [300], [128, 128], [1] * 9, [200, 10]]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with stand_in(monkeypatch):
        yield


@pytest.fixture
def flex_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention as torch writes it out, which knows gradients on a CPU as well."""
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex, "_kernel", lambda: flex_attention.flex_attention)
    monkeypatch.setattr(flex, "_has_triton", lambda: True)


def states(tokens: int, dtype: torch.dtype, size: int = 16) -> tuple[Tensor, ...]:
    """Query, key and value as a layer makes them: [1, heads, tokens, head_dim]."""
    torch.manual_seed(0)
    made = (torch.randn(1, tokens, heads, size).to(dtype) for heads in (4, 2, 2))
    return tuple(x.transpose(1, 2).requires_grad_() for x in made)


def attended(lengths: list[int], inputs: tuple[Tensor, ...], **options: Any) -> list[Tensor]:
    """The attention, and the gradients of its inputs."""
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    out, _ = document_attention(
        nn.Identity(),
        inputs[0],
        inputs[1],
        inputs[2],
        None,
        cu_seq_lens_q=bounds,
        max_length_q=max(lengths),
        **options,
    )
    torch.manual_seed(1)
    gradients = torch.autograd.grad(out, inputs, torch.randn(out.shape).to(out.dtype))
    return [out.detach(), *gradients]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_flash_attention_is_that_of_each_document(
    lengths: list[int], window: int | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = states(sum(lengths), dtype)
    exact = tuple(x.detach().float().requires_grad_() for x in inputs)
    expected = attended(lengths, exact, sliding_window=window, scaling=0.3)
    with stand_in(monkeypatch):
        found = attended(lengths, inputs, sliding_window=window, scaling=0.3)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.float(), other, rtol=2e-2, atol=2e-2)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("in_float", [True, False])
def test_queries_in_another_format_are_brought_to_that_of_the_values(in_float: bool) -> None:
    query, key, value = states(12, torch.bfloat16)
    if in_float:
        query, key = query.float(), key.float()
    bounds = torch.tensor([0, 5, 12], dtype=torch.int32)
    out, _ = document_attention(
        nn.Identity(), query, key, value, None, cu_seq_lens_q=bounds, max_length_q=7
    )
    assert out.dtype == torch.bfloat16 and bool(out.isfinite().all())


@pytest.mark.parametrize(
    ("size", "values", "dtype", "options", "capability", "flash", "flexes"),
    [
        (64, 64, torch.bfloat16, {}, (8, 0), True, True),
        (64, 64, torch.bfloat16, {}, (7, 5), False, True),
        (64, 64, torch.float32, {}, (9, 0), False, False),
        (264, 264, torch.bfloat16, {}, (9, 0), False, True),
        (36, 36, torch.bfloat16, {}, (9, 0), False, True),
        (64, 32, torch.bfloat16, {}, (9, 0), False, True),
        (8, 8, torch.bfloat16, {"softcap": 5.0}, (9, 0), False, False),
        (64, 64, torch.bfloat16, {"softcap": 5.0}, (9, 0), False, True),
        (64, 64, torch.float32, {"sinks": torch.zeros(4)}, (9, 0), False, True),
        (64, 64, torch.bfloat16, {"dropout": 0.1}, (9, 0), False, False),
    ],
)
def test_a_kernel_is_chosen_that_takes_the_shapes(
    size: int,
    values: int,
    dtype: torch.dtype,
    options: dict[str, Any],
    capability: tuple[int, int],
    flash: bool,
    flexes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flex, "_has_triton", lambda: True)
    dropout = options.get("dropout", 0.0)
    within = Within(dropout, None, None, options.get("softcap"), options.get("sinks"))
    query, value = (
        torch.zeros(1, 4, 2, size, dtype=dtype),
        torch.zeros(1, 4, 2, values, dtype=dtype),
    )
    assert not within.on_gpu(query, value) and not within.by_flex(query)
    with stand_in(monkeypatch, capability):
        monkeypatch.setattr(flex, "_has_triton", lambda: True)
        assert within.on_gpu(query, value) is flash
        assert within.by_flex(query) is flexes


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("window", [None, 7])
def test_ranks_that_share_a_sequence_see_what_one_would(
    ranks: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [40, 1, 23, 5, 64, 59]
    tokens, chunk = sum(lengths), sum(lengths) // (2 * ranks)
    assert tokens == 2 * ranks * chunk
    inputs = states(tokens, torch.bfloat16)
    exact = tuple(x.detach().float().requires_grad_() for x in inputs)
    expected = attended(lengths, exact, sliding_window=window)[0]
    bounds = torch.tensor([0, *lengths]).cumsum(0).tolist()
    query, key, value = inputs
    monkeypatch.setattr(SharedSequences, "_gathered", lambda _, states: states)
    with stand_in(monkeypatch):
        monkeypatch.setattr(SharedSequences, "_gathered", lambda _, states: states)
        for rank in range(ranks):
            mine = (rank, 2 * ranks - 1 - rank)
            places = torch.cat([torch.arange(c * chunk, (c + 1) * chunk) for c in mine])
            shared = SharedSequences(None)  # type: ignore[arg-type]
            shared._segments = segments(bounds, mine, chunk)
            for _layer in range(2):
                found, _ = shared(
                    nn.Identity(), query[:, :, places], key, value, None, sliding_window=window
                )
                torch.testing.assert_close(found.float(), expected[:, places], rtol=2e-2, atol=2e-2)


@pytest.mark.usefixtures("flex_on_cpu")
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("window", [None, 7, 130])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_flex_attention_is_that_of_each_document(
    lengths: list[int], window: int | None, softcap: float | None, with_sinks: bool
) -> None:
    inputs = states(sum(lengths), torch.float32)
    sinks = torch.tensor([0.5, -1.0, 3.0, 0.0], requires_grad=True) if with_sinks else None
    expected = attended(lengths, inputs, sliding_window=window, softcap=softcap, s_aux=sinks)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    out = flex.flexible(*inputs, bounds, scaling=None, window=window, softcap=softcap, sinks=sinks)
    torch.manual_seed(1)
    gradients = torch.autograd.grad(out, inputs, torch.randn(out.shape))
    for found, one in zip([out, *gradients], expected, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-4, atol=2e-5)


@pytest.mark.usefixtures("flex_on_cpu")
def test_sinks_learn_from_flex_attention_as_from_the_softmax_written_out() -> None:
    query, key, value = states(12, torch.float32)
    bounds = torch.tensor([0, 5, 12], dtype=torch.int32)
    learnt: list[Tensor] = []
    for kernel in (True, False):
        sinks = torch.tensor([0.5, -1.0, 3.0, 0.0], requires_grad=True)
        if kernel:
            options = {"scaling": None, "window": None, "softcap": None}
            out = flex.flexible(query, key, value, bounds, sinks=sinks, **options)
        else:
            out, _ = document_attention(
                nn.Identity(), query, key, value, None, cu_seq_lens_q=bounds, s_aux=sinks
            )
        learnt += torch.autograd.grad(out.square().sum(), sinks)
    torch.testing.assert_close(*learnt, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [*LENGTHS, [500, 13, 700], [128, 256, 64]])
@pytest.mark.parametrize("window", [None, 7, 128, 300])
def test_blocks_are_those_of_the_mask_of_all_tokens(lengths: list[int], window: int | None) -> None:
    tokens = sum(lengths)
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    made = flex.document_mask(bounds, tokens, window)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))

    def seen(_b: Tensor, _h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        found = (q >= k) & (owner[q] == owner[k])
        return found if window is None else found & (q - k < window)

    whole = flex_attention.create_block_mask(seen, None, None, tokens, tokens, device="cpu")
    for part in ("kv", "full_kv", "q", "full_q"):
        sets = []
        for mask in (made, whole):
            counts, columns = getattr(mask, f"{part}_num_blocks"), getattr(mask, f"{part}_indices")
            sets.append(
                [set(row[:n].tolist()) for row, n in zip(columns[0, 0], counts[0, 0], strict=True)]
            )
        assert sets[0] == sets[1], part


def compare_compiled(lengths: list[int]) -> None:
    """Flex attention by its kernel, against attention within each document."""
    query, key, value = (x.detach() for x in states(sum(lengths), torch.float32))
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    options = {"scaling": None, "softcap": 5.0}
    with torch.no_grad():
        found = flex.flexible(query, key, value, bounds, window=150, sinks=None, **options)
        expected, _ = document_attention(
            nn.Identity(),
            query,
            key,
            value,
            None,
            cu_seq_lens_q=bounds,
            sliding_window=150,
            softcap=5.0,
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_flex_attention_is_compiled_once_for_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    kernel = torch.compile(flex_attention.flex_attention, backend="aot_eager")
    monkeypatch.setattr(flex, "_kernel", lambda: kernel)
    for lengths in ([500, 13, 187], [128, 256, 316], [900], [64] * 10, [300, 400], [1200], [512]):
        compare_compiled(lengths)
    # One for the first length, and one in which it is a variable.
    assert counters["stats"]["unique_graphs"] <= 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")
def test_flex_attention_compiled_visits_the_right_blocks() -> None:
    """For one length: torch's template for CPUs does not know variable ones."""
    torch.compiler.reset()
    flex._kernel.cache_clear()
    compare_compiled([500, 13, 187])


def filled_line() -> Batch:
    """Short rows in a line that is filled up with more tokens than the longest row has."""
    rows = [row for row in documents() if len(row.input_ids) < 8]
    return Layout(0, in_line=True, multiple=64).batch(rows, range(len(rows)), len(rows))


@pytest.mark.usefixtures("flex_on_cpu")
@pytest.mark.parametrize("kind", ["llama", "qwen3", "mistral", "gemma2"])
@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32])
def test_a_filled_line_trains_as_it_does_in_float32(
    kind: str,
    weights: torch.dtype,
    models_of: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With weights in half precision, and with float32 ones that are multiplied in it."""
    batch, found = filled_line(), []
    for half in (False, True):
        model: Any = AutoModelForCausalLM.from_pretrained(
            models_of(kind),
            dtype=weights if half else torch.float32,
            attn_implementation=DOCUMENTS,
        )
        mixed = half and weights == torch.float32
        loss_sum = SupervisedLoss(model, autocast=torch.bfloat16 if mixed else None)
        with stand_in(pytest.MonkeyPatch()) if half else nullcontext(), monkeypatch.context() as m:
            m.setattr(flex, "_SMALLEST_HEAD", 8)
            loss = loss_sum(batch)
            loss.backward()
        assert {p.grad.dtype for p in model.parameters()} == {model.dtype}
        gradients = torch.cat([p.grad.float().flatten() for p in model.parameters()])
        found.append((loss.item() / batch.targets.numel(), gradients))
    (exact, right), (rough, rounded) = found
    assert rough != exact
    assert rough == pytest.approx(exact, rel=1e-2)
    assert torch.cosine_similarity(right, rounded, dim=0) > 0.99


def test_mixed_formats_are_attended_to_on_a_cpu_as_well() -> None:
    query, key, value = states(12, torch.bfloat16)
    bounds = torch.tensor([0, 5, 12], dtype=torch.int32)
    expected, _ = document_attention(
        nn.Identity(), query.float(), key.float(), value.float(), None, cu_seq_lens_q=bounds
    )
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = document_attention(
            nn.Identity(), query.float(), key.float(), value, None, cu_seq_lens_q=bounds
        )
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=2e-2, atol=2e-2)
