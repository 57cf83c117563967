from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
from peft.tuners import lora
from torch import nn

from tunedeck.trainer.model import lora_linear
from tunedeck.trainer.model.lora_linear import LoraLinear


def layers(**options: Any) -> tuple[nn.Module, nn.Module]:
    """The same adapted layer, ours and PEFT's."""
    made = []
    for own in (True, False):
        torch.manual_seed(0)
        model = nn.ModuleDict({"layer": nn.Linear(12, 7, bias=options.get("bias", True))})
        settings = peft.LoraConfig(
            r=3,
            lora_alpha=5,
            target_modules=["layer"],
            init_lora_weights=False,
            **{k: v for k, v in options.items() if k != "bias"},
        )
        if own:
            settings._register_custom_module({nn.Linear: LoraLinear})
        layer = peft.inject_adapter_in_model(settings, model).get_submodule("layer")
        assert type(layer) is (LoraLinear if own else lora.Linear)
        made.append(layer)
    return made[0], made[1]


@pytest.mark.parametrize(
    ("options", "joined"),
    [
        ({}, True),
        ({"bias": False}, True),
        ({"use_rslora": True}, True),
        ({"use_dora": True}, False),
        ({"lora_dropout": 0.5}, False),
    ],
)
def test_it_computes_what_peft_computes(
    options: dict[str, Any], joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original: Any = lora_linear._joined

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(lora_linear, "_joined", counted)
    found = []
    for layer in layers(**options):
        torch.manual_seed(1)
        x = torch.randn(2, 5, 12, requires_grad=True)
        out = layer(x)
        (out * torch.randn(2, 5, 7)).sum().backward()
        gradients = {n: p.grad for n, p in layer.named_parameters() if p.grad is not None}
        found.append((out.detach(), x.grad, gradients))
    assert bool(calls) is joined
    (ours, for_x, mine), (theirs, their_x, their) = found
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(for_x, their_x)
    assert mine.keys() == their.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, their[name])


def test_what_it_gives_may_be_changed_in_place() -> None:
    found = []
    for layer in layers():
        given = layer(torch.ones(2, 3, 12))
        given *= 2
        given.sum().backward()
        found.append([p.grad for p in layer.parameters() if p.grad is not None])
    torch.testing.assert_close(*found)


def test_autocast_and_a_merged_adapter_are_left_to_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_linear, "_joined", lambda *_: pytest.fail("joined"))
    layer: Any = layers()[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(4, 12)).dtype == torch.bfloat16
    layer.merge()
    assert layer(torch.randn(4, 12)).shape == (4, 7)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_float32_adapter_beside_a_base_in_half_precision_is_joined_under_autocast(
    half: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original: Any = lora_linear._joined

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return original(*arguments)

    monkeypatch.setattr(lora_linear, "_joined", counted)
    found: list[list[torch.Tensor]] = []
    for layer in (*layers(), layers()[1]):
        exact = len(found) == 2
        if not exact:
            layer.base_layer.to(half)
        torch.manual_seed(1)
        x = torch.randn(2, 5, 12).to(half).to(torch.float32 if exact else half).requires_grad_()
        with torch.autocast("cpu", half, enabled=not exact):
            out = layer(x)
        assert out.dtype == x.dtype
        (out * torch.randn(2, 5, 7).to(x.dtype)).sum().backward()
        gradients = [p.grad for p in layer.parameters() if p.grad is not None]
        assert {g.dtype for g in gradients} == {torch.float32}
        assert x.grad is not None
        found.append([out.detach().float(), x.grad.float(), *gradients])
    assert len(calls) == 1
    for ours, theirs, right in zip(*found, strict=True):
        assert (ours - right).norm() <= 1.5 * (theirs - right).norm() + 1e-3 * right.norm()
        torch.testing.assert_close(ours, right, rtol=5e-2, atol=1e-1)
