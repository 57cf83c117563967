from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tunedeck.trainer.update.cross_entropy import token_losses


@pytest.mark.parametrize("kind", ["product", "leaf", "capped"])
@pytest.mark.parametrize("size", [1.0, 300.0])
def test_losses_and_gradients_are_those_of_torch(kind: str, size: float) -> None:
    found = []
    for own in (True, False):
        torch.manual_seed(0)
        hidden, weight = (torch.randn(n, 8, requires_grad=True) for n in (1, 50))
        hidden = (hidden.expand(6, 8) + torch.randn(6, 8)).detach().requires_grad_()
        logits = (hidden * size) @ weight.T
        if kind == "leaf":
            logits = hidden = logits.detach().requires_grad_()
        elif kind == "capped":
            # It keeps its result, which must not be written over.
            logits = 30 * torch.tanh(logits / 30)
        targets = torch.arange(6) * 7
        losses = (
            token_losses(logits, targets)
            if own
            else F.cross_entropy(logits, targets, reduction="none")
        )
        scales = torch.tensor([1.0, 2.0, 0.5, 1.0, 0.0, 3.0])
        (losses * scales).sum().backward()
        found.append((losses.detach(), hidden.grad, weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * size)


def test_a_products_result_is_written_over_and_nothing_else_is() -> None:
    weight = torch.randn(50, 8, requires_grad=True)
    logits = torch.randn(6, 8) @ weight.T
    leaf = logits.detach().clone().requires_grad_()
    before, targets = leaf.detach().clone(), torch.arange(6)
    token_losses(leaf, targets).sum().backward()
    assert torch.equal(leaf, before)
    token_losses(logits, targets)
    assert not torch.equal(logits, before)


def test_a_second_backward_pass_is_refused() -> None:
    logits = torch.randn(6, 50, requires_grad=True)
    loss = token_losses(logits, torch.arange(6)).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_nothing_supervised_is_no_loss() -> None:
    logits = (torch.zeros(0, 8) @ torch.randn(8, 50, requires_grad=True)).view(0, 50)
    losses: Tensor = token_losses(logits, torch.empty(0, dtype=torch.int64))
    assert losses.shape == (0,)
    losses.sum().backward()


def test_an_infinite_or_missing_logit_is_seen() -> None:
    logits = torch.zeros(2, 5)
    logits[0, 1], logits[1, 2] = float("inf"), float("nan")
    assert not token_losses(logits, torch.tensor([0, 0])).isfinite().any()
