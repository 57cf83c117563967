from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tunedeck.trainer.model import cpu_attention

attend: Any = cpu_attention.documents_on_cpu
LENGTHS = [300, 1, 128, 64, 140]


def states(groups: int) -> list[Tensor]:
    torch.manual_seed(0)
    shapes = [(1, sum(LENGTHS), heads, 16) for heads in (4, groups, groups)]
    return [torch.randn(shape).transpose(1, 2).requires_grad_() for shape in shapes]


def with_gradients(
    function: Callable[..., Tensor], tensors: list[Tensor], weights: Tensor
) -> list[Tensor]:
    attended = function(*tensors)
    return [attended, *torch.autograd.grad((attended * weights).sum(), tensors)]


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("scale", "onednn"), [(None, False), (0.3, False), (0.3, True)])
def test_blocks_compute_causal_attention_of_each_document(
    groups: int, scale: float | None, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who computes decides the size of blocks.
    monkeypatch.setattr(cpu_attention, "onednn_computes", lambda: onednn)

    def exact(*tensors: Tensor) -> Tensor:
        parts = zip(*(x.double().split(LENGTHS, dim=2) for x in tensors), strict=True)
        seen = [
            F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
            for q, k, v in parts
        ]
        return torch.cat(seen, dim=2).transpose(1, 2)

    in_blocks: list[int] = []
    original: Any = cpu_attention._attend

    def counted(states: Any, *rest: Any, **options: Any) -> Any:
        in_blocks.append(states.query.shape[2])
        return original(states, *rest, **options)

    monkeypatch.setattr(cpu_attention, "_attend", counted)
    tensors = states(groups)
    weights = torch.randn(1, sum(LENGTHS), 4, 16)
    expected = with_gradients(exact, tensors, weights)
    found = with_gradients(lambda *x: attend(*x, LENGTHS, scale), tensors, weights)
    assert in_blocks == [300, 128, 140]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 4])
def test_some_queries_see_what_they_saw_among_all(groups: int) -> None:
    """Documents of which all, one, some scattered, none and the last tokens ask."""
    torch.manual_seed(1)
    chosen = [torch.ones(length, dtype=torch.bool) for length in LENGTHS]
    chosen[2] = torch.rand(LENGTHS[2]) < 0.3
    chosen[3][:] = False
    chosen[4][:-70] = False
    places, asked = [x.nonzero()[:, 0] for x in chosen], torch.cat(chosen)
    tensors = states(groups)
    weights = torch.randn(1, int(asked.sum()), 4, 16)

    def among_all(*states: Tensor) -> Tensor:
        attended: Tensor = attend(*states, LENGTHS, 0.3)
        return attended[:, asked]

    def alone(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended: Tensor = attend(query[:, :, asked], key, value, LENGTHS, 0.3, places)
        return attended

    expected = with_gradients(among_all, tensors, weights)
    found = with_gradients(alone, tensors, weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_document_sees_another() -> None:
    tensors = states(2)
    attended = attend(*tensors, LENGTHS, None)
    with torch.no_grad():
        for tensor in tensors:
            tensor[:, :, :300] += 1
    changed = attend(*tensors, LENGTHS, None)
    assert torch.equal(changed[:, 300:], attended[:, 300:])
    assert not torch.equal(changed[:, :300], attended[:, :300])


@pytest.mark.parametrize(("length", "kept"), [(300, True), (800, False)])
def test_only_short_documents_keep_their_weights(length: int, kept: bool) -> None:
    torch.manual_seed(2)
    tensors = [torch.randn(1, 2, length, 16, requires_grad=True) for _ in range(3)]
    attended = attend(*tensors, [length], None)
    states = sum(x.numel() for x in (*tensors, attended))
    saved = sum(x.numel() for x in attended.grad_fn.saved_tensors if x is not None)
    assert (saved > states) is kept
    found = torch.autograd.grad(attended.square().sum(), tensors)
    query, key, value = (x.double() for x in tensors)
    exact = F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
    expected = torch.autograd.grad(exact.square().sum(), tensors)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
