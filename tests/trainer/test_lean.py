from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from tunedeck.trainer.model import lean
from tunedeck.trainer.model.activation_checkpointing import checkpoint_activations
from tunedeck.trainer.model.lean import use_lean_functions
from tunedeck.trainer.model.lora_linear import LoraLinear

from .helpers import KINDS, SIZES

PROJECTIONS = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
IDS = torch.arange(34).view(2, 17) % 29 + 3
# What of a model is known: norms, feed-forward layers and attention with rotary embeddings.
PARTS = {
    "llama": {"RMSNorm", "MLP", "Attention"},
    "qwen2": {"RMSNorm", "MLP", "Attention"},
    "qwen3": {"RMSNorm", "MLP", "Attention"},
    "mistral": {"RMSNorm", "MLP", "Attention"},
    "mixtral": {"RMSNorm", "Attention"},
    "qwen3_moe": {"RMSNorm", "Attention"},
    "gemma2": {"RMSNorm", "MLP", "Attention"},
    "gpt2": set(),
}
EXTRA: dict[str, dict[str, Any]] = {"gpt2": {}, "qwen2": {}}


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    sizes = {} if kind == "gpt2" else SIZES
    config = AutoConfig.for_model(kind, vocab_size=40, **{**sizes, **{**EXTRA, **KINDS}[kind]})
    if kind == "gpt2":
        config.n_layer, config.n_embd, config.n_head = 1, 32, 2
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.5, std=0.2)
    return model


def loss_and_gradients(model: Any) -> tuple[float, dict[str, Tensor]]:
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.item(), gradients


def replaced(model: nn.Module) -> set[str]:
    own = {type(m).__name__ for m in model.modules() if lean._lean(type(m).__mro__[1]) is type(m)}
    return {part for part in ("RMSNorm", "MLP", "Attention") for name in own if part in name}


@pytest.mark.parametrize("kind", PARTS)
def test_a_model_computes_what_it_computed(kind: str) -> None:
    plain = model_of(kind)
    model = copy.deepcopy(plain)
    names = {type(module).__name__ for module in plain.modules()}
    found = use_lean_functions(model)
    assert replaced(model) == PARTS[kind]
    assert bool(found) is bool(PARTS[kind])
    assert {type(module).__name__ for module in model.modules()} == names

    expected, gradients = loss_and_gradients(plain)
    loss, own = loss_and_gradients(model)

    assert loss == pytest.approx(expected, abs=1e-6)
    assert own.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_model_with_adapters_computes_what_it_computed(bias: bool, dropout: float) -> None:
    settings = peft.LoraConfig(r=3, lora_alpha=5, lora_dropout=dropout, target_modules=PROJECTIONS)
    settings._register_custom_module({nn.Linear: LoraLinear})
    config = AutoConfig.for_model("llama", vocab_size=40, mlp_bias=bias, **SIZES)
    adapted = peft.inject_adapter_in_model(settings, AutoModelForCausalLM.from_config(config))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    model = copy.deepcopy(adapted)
    use_lean_functions(model)
    found = []
    for each in (adapted, model):
        torch.manual_seed(1)
        found.append(loss_and_gradients(each))
    (expected, gradients), (loss, own) = found
    assert loss == pytest.approx(expected, abs=1e-6)
    assert len(gradients) == len(own) == 28
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def kept(model: Any) -> int:
    """Bytes that the graph keeps for the backward pass, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return sum(seen.values())


def test_less_is_kept_for_the_backward_pass() -> None:
    plain = model_of("llama")
    model = copy.deepcopy(plain)
    use_lean_functions(model)
    assert kept(model) < 0.7 * kept(plain)


class OtherMLP(nn.Module):
    """Like Llama's but for one instruction."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(4, 4) for _ in range(3))
        self.act_fn = nn.SiLU()

    def forward(self, x: Tensor) -> Any:
        down_proj = self.down_proj(self.act_fn(self.gate_proj(x)) + self.up_proj(x))
        return down_proj  # noqa: RET504  # as Llama's is written


def test_what_is_not_known_is_left_alone() -> None:
    assert use_lean_functions(nn.Sequential(OtherMLP(), nn.LayerNorm(4), nn.Linear(4, 4))) == 0


def test_a_hook_on_a_layer_is_called() -> None:
    model = model_of("llama")
    use_lean_functions(model)
    called = []
    model.model.layers[0].mlp.down_proj.register_forward_hook(lambda *_: called.append(1))
    model(input_ids=IDS)
    assert called == [1]


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_half_precision_goes_to_the_models_own_code(kind: str) -> None:
    plain = model_of(kind).bfloat16()
    model = copy.deepcopy(plain)
    use_lean_functions(model)
    assert torch.equal(model(input_ids=IDS).logits, plain(input_ids=IDS).logits)


@pytest.mark.filterwarnings("ignore")  # of torch, about its own functions as it compiles
@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("how", [True, "selective", "compile"])
def test_blocks_that_are_compiled_or_run_again_compute_the_same(how: Any, adapted: bool) -> None:
    plain = model_of("llama").train()
    if adapted:
        settings = peft.LoraConfig(r=3, target_modules=PROJECTIONS, init_lora_weights=False)
        settings._register_custom_module({nn.Linear: LoraLinear})
        peft.inject_adapter_in_model(settings, plain)
    model = copy.deepcopy(plain)
    use_lean_functions(model)
    if how == "compile":
        for layer in model.model.layers:
            layer.compile(backend="aot_eager")
    else:
        checkpoint_activations(model, how)
    expected, gradients = loss_and_gradients(plain)
    loss, own = loss_and_gradients(model)
    assert loss == pytest.approx(expected, abs=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
