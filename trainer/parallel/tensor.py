"""Tensor parallelism: each rank computes some heads, and some columns of each feed-forward layer.

Megatron-LM's scheme (arXiv:1909.08053) by the plan that transformers has for a model: `colwise`
layers split their outputs, `rowwise` layers their inputs, and a sum over the ranks follows. With
sequence parallelism (arXiv:2205.05198) that sum leaves each rank a part of the sequence, on which
norms and residuals work. All weights are DTensors, computed with as plain local tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from peft.tuners.lora.dora import DoraLinearLayer
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel

from ...core.errors import UsageError
from .collectives import Group, add_up
from .context import DistributedContext
from .dora import SplitMagnitude
from .exchanges import Exchanges
from .fsdp import blocks
from .local import compute_locally, copies_of, lay, local_weights
from .plans import styles_of
from .vocabulary import split_vocabulary

_STYLES = {"colwise": Shard(0), "rowwise": Shard(1)}
_WITHIN = {*_STYLES, "replicated_with_grad_allreduce"}


def check_tensor_parallel(config: PretrainedConfig) -> None:
    """Find out from the architecture whether its layers can be split.

    Raises:
        UsageError: transformers has no plan for it.
    """
    text = config.get_text_config()
    if not getattr(text, "base_model_tp_plan", None):
        raise UsageError(
            f"distributed.tp_size: transformers has no plan to split '{config.model_type}'.",
            fix="Set distributed.tp_size=1; fsdp2 shards any model.",
        )


def split_layers(
    model: PreTrainedModel,
    context: DistributedContext,
    experts: Sequence[nn.Module] = (),
    *,
    sequence: bool,
) -> None:
    """Split a model over the `tp` ranks, in place.

    Args:
        model: with its adapters.
        context: the ranks.
        experts: modules inside whose weights are spread already.
        sequence: sequence parallelism between the split layers.
    """
    assert context.device_mesh is not None
    mesh = context.device_mesh["tp"]
    exchanges = Exchanges(mesh.get_group(), sequence=sequence)
    split = _Split(mesh, experts, exchanges, sequence=sequence)
    plan = styles_of(model.tp_plan)
    layers = list(blocks(model))
    for layer in layers:
        path = next(name for name, module in model.named_modules() if module is layer)
        for name, child in layer.named_children():
            split.child(child, f"{path}.{name}", plan)
    split.ends(model)
    if sequence:
        layers[0].register_forward_pre_hook(exchanges.enter_sequence, with_kwargs=True)
        layers[-1].register_forward_hook(exchanges.leave_sequence)


class _Split:
    """Puts the ranks' exchanges around the parts of a model.

    Args:
        mesh: the `tp` ranks.
        experts: modules that are left as they are.
        exchanges: between the ranks.
        sequence: whether each has a part of the sequence between the split layers.
    """

    def __init__(
        self,
        mesh: DeviceMesh,
        experts: Sequence[nn.Module],
        exchanges: Exchanges,
        *,
        sequence: bool,
    ) -> None:
        self._mesh, self._sequence = mesh, sequence
        self._group: Group = mesh.get_group()
        self._exchanges = exchanges
        self._made: dict[int, DTensor] = {}
        self._experts = set(experts)
        self._seen: set[nn.Module] = set(experts)

    def child(self, child: nn.Module, path: str, plan: Callable[[str], str | None]) -> None:
        """Split attention or feed-forward of a block; norms, and what has no plan, stay whole.

        With sequence parallelism norms see different tokens on each rank, and so do experts that
        are spread; what else has no plan gets the whole sequence. Without it, around such experts
        each part is looked at by itself.
        """
        spread = any(module in self._experts for module in child.modules())
        if spread and not self._sequence:
            for name, inner in child.named_children():
                if inner not in self._experts:
                    self.child(inner, f"{path}.{name}", plan)
            self._plain(child, summed=False)
            return
        names = {f"{path}.{name}" if name else path: part for name, part in child.named_modules()}
        weights = [f"{path}.{name}" for name, _ in child.named_parameters()]
        styles = {plan(name) for name in (*names, *weights)} - {None}
        if not styles or styles - _WITHIN:
            mixes = any(weight.ndim > 1 for weight in child.parameters())
            whole = self._sequence and mixes and not spread
            if whole:
                child.register_forward_pre_hook(self._exchanges.enter_same, with_kwargs=True)
                child.register_forward_hook(self._exchanges.leave_same)
            for module in child.modules():
                self._plain(module, summed=self._sequence and not whole)
            return
        child.register_forward_pre_hook(self._exchanges.enter, with_kwargs=True)
        for name, module in names.items():
            style = plan(name)
            if style in _STYLES and not name.endswith(".base_layer"):
                for one in copies_of(module):
                    self._linear(one, style)
        for module in child.modules():
            self._plain(module, summed=True)

    def _linear(self, module: nn.Module, style: str) -> None:
        """A linear layer, or one with adapters inside."""
        adapted: Any = module
        base = adapted.get_base_layer() if hasattr(module, "get_base_layer") else module
        self._weights(base, _STYLES[style])
        (self._rowwise if style == "rowwise" else self._local)(base)
        if base is module:
            return
        down, up = adapted.lora_A["default"], adapted.lora_B["default"]
        for magnitude in adapted.lora_magnitude_vector.values():
            self._weights(magnitude, _STYLES[style])
            self._seen.add(magnitude)
            row = style == "rowwise"
            magnitude.forward = SplitMagnitude(
                magnitude,
                self._group if row else None,
                leave=self._exchanges.leave if row else None,
                summed=self._sequence,
            )
        if style == "colwise":
            self._weights(up, Shard(0))
            self._local(up)
        else:
            # The sum is taken where it is smallest; what follows is the same on all ranks.
            self._weights(down, Shard(1))
            self._local(down)
            down.register_forward_hook(lambda _m, _i, out: add_up(out, self._group))
            self._plain(up, summed=False)
            if self._sequence:
                up.register_forward_hook(lambda _m, _i, out: self._exchanges.to_part(out))

    def _weights(self, module: nn.Module, placement: Shard) -> None:
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                vector = weight.ndim == 1 and placement.dim == 1
                lay(module, name, self._mesh, Replicate() if vector else placement, self._made)

    def _local(self, module: nn.Module, *, summed: bool = True) -> None:
        """Compute with this rank's pieces."""
        compute_locally(module, summed=summed)
        self._seen.add(module)

    def _rowwise(self, module: Any) -> None:
        """Each rank has some inputs: the outputs are added up, then the bias is."""

        def forward(x: Tensor) -> Tensor:
            with local_weights(module, summed=self._sequence):
                summed = self._exchanges.leave(F.linear(x, module.weight))
                return summed if module.bias is None else summed + module.bias

        module.forward = forward
        self._seen.add(module)

    def _plain(self, module: nn.Module, *, summed: bool) -> None:
        """Weights that every rank has whole."""
        if module in self._seen or not any(w is not None for w in module._parameters.values()):
            return
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                lay(module, name, self._mesh, Replicate(), self._made)
        if isinstance(module, DoraLinearLayer):
            magnitude: Any = module
            magnitude.forward = SplitMagnitude(module, None, leave=None, summed=summed)
            self._seen.add(module)
        else:
            self._local(module, summed=summed)

    def ends(self, model: PreTrainedModel) -> None:
        """Split embeddings and output head; what else lies outside of blocks is whole."""
        self._seen.update(split_vocabulary(model, self._mesh, self._made))
        for module in model.modules():
            self._plain(module, summed=False)
