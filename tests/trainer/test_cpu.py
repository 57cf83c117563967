from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tunedeck.trainer.model import cpu

MATMUL: Any = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009  # not in torch's stubs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = MATMUL.fp32_precision
    yield
    MATMUL.fp32_precision = before


def test_products_are_exact_whoever_computes_them() -> None:
    cpu.use_fast_products()
    torch.manual_seed(0)
    one, other = torch.randn(300, 500), torch.randn(500, 200)
    exact = one.double() @ other.double()
    torch.testing.assert_close(one @ other, exact.float(), rtol=1e-4, atol=1e-4)
    assert cpu._exact()


def test_a_processor_that_rounds_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_suits", lambda: True)
    monkeypatch.setattr(cpu, "_exact", lambda: False)
    assert cpu.use_fast_products() is False
    assert MATMUL.fp32_precision == "ieee"


def test_rounded_factors_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = torch.Tensor.__matmul__

    def rounding(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return original(one.bfloat16().float(), other.bfloat16().float())

    assert cpu._exact()
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounding)
    assert not cpu._exact()


def test_small_products_are_the_same_switch_for_a_while() -> None:
    MATMUL.fp32_precision = "bf16"
    with cpu.small_products():
        assert MATMUL.fp32_precision == "ieee"
    assert MATMUL.fp32_precision == "bf16"
    MATMUL.fp32_precision = "ieee"
    with cpu.small_products():
        assert MATMUL.fp32_precision == "ieee"
