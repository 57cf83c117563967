"""A model without weights, and how its weights come into being piece by piece.

No rank ever holds more of the model than its own pieces and one whole layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from ..model.kinds import loader_of
from ..runtime import RuntimeConfig
from .tensors import piece_of

_META = torch.device("meta")


def empty_model(runtime: RuntimeConfig) -> PreTrainedModel:
    """The architecture with shapes and formats, and no values (on the device `meta`)."""
    with _META:
        built: Any = loader_of(runtime.kind).from_config(
            runtime.model_config,
            dtype=runtime.dtype,
            attn_implementation=runtime.attn_impl,
            trust_remote_code=runtime.own_code,
        )
    return cast(PreTrainedModel, built)


@contextmanager
def stand_ins(model: nn.Module) -> Iterator[None]:
    """Give each weight on `meta` a place on the CPU that takes no room, while adapters are added.

    PEFT puts an adapter where its layer is, and makes its first values there: these have to be
    real, and the same as on a single process.
    """
    remake(model, lambda p: p.is_meta, lambda p: torch.zeros((), dtype=p.dtype).expand(p.shape))
    yield
    contiguous = torch.contiguous_format
    remake(
        model,
        _is_stand_in,
        lambda p: torch.empty_like(p, device=_META, memory_format=contiguous),
    )


def remake(
    model: nn.Module, chosen: Callable[[nn.Parameter], bool], make: Callable[[Tensor], Tensor]
) -> list[nn.Parameter]:
    """Put others in the places of some weights, in place; those that are tied stay so.

    Args:
        model: the model.
        chosen: which weights.
        make: what takes the place of one.

    Returns:
        The new ones.
    """
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is not None and chosen(old):
                if id(old) not in made:
                    made[id(old)] = nn.Parameter(make(old.detach()), old.requires_grad)
                module._parameters[name] = made[id(old)]
    return list(made.values())


def _is_stand_in(tensor: Tensor) -> bool:
    return tensor.numel() > 1 and tensor.untyped_storage().nbytes() <= tensor.element_size()


@torch.no_grad()
def fill(model: PreTrainedModel, device: torch.device) -> None:
    """Initialize what is still without values, as a new model's weights are.

    One layer at a time is made whole, on the CPU, so that the values are the same on any number of
    ranks; each rank keeps its pieces. After loading, these are the tables that no file has.

    Args:
        model: weights that are loaded already are left as they are.
        device: where the pieces lie.
    """
    _fill(model, model, device)
    model.tie_weights()


@torch.no_grad()
def hollow(model: PreTrainedModel, device: torch.device) -> None:
    """Give each weight that is on `meta` its place and no values: these are a checkpoint's.

    Args:
        model: laid out over the ranks, or on one process.
        device: where the pieces lie.
    """
    for piece in remake(model, lambda p: p.is_meta, lambda p: torch.empty_like(p, device=device)):
        # So that no initialization takes the trouble.
        piece._is_hf_initialized = True  # type: ignore[attr-defined]
    fill(model, device)


def generates_as(model: PreTrainedModel, source: str, revision: str | None) -> None:
    """Let a model generate as the one it is made from: its stop tokens may be of several kinds.

    Args:
        model: built from an architecture alone.
        source: a folder or a hub id; where it says nothing of generation, nothing changes.
        revision: of a hub id.
    """
    options: dict[str, Any] = {"revision": revision}
    if model.can_generate():
        with suppress(OSError):
            model.generation_config = GenerationConfig.from_pretrained(source, **options)


def place_tables(model: nn.Module, device: torch.device) -> None:
    """Put what a model looks up and does not train where it computes, wherever its weights lie."""
    for module in model.modules():
        for name, table in module._buffers.items():
            if table is not None:
                module._buffers[name] = table.to(device)


def _fill(module: nn.Module, owner: PreTrainedModel, device: torch.device) -> None:
    for child in module.children():
        _fill(child, child if isinstance(child, PreTrainedModel) else owner, device)
    missing = {n: p for n, p in module._parameters.items() if p is not None and p.is_meta}
    tables = {n: b for n, b in module._buffers.items() if b is not None and b.is_meta}
    if not missing and not tables:
        return
    for name, parameter in missing.items():
        whole = torch.empty(parameter.shape, dtype=parameter.dtype)
        module._parameters[name] = nn.Parameter(whole, requires_grad=False)
    for name, table in tables.items():
        module._buffers[name] = torch.empty_like(table, device=device)
    owner._init_weights(module)
    for name, parameter in missing.items():
        made = module._parameters[name]
        assert made is not None
        piece = piece_of(made.data, parameter, device)
        module._parameters[name] = nn.Parameter(piece, parameter.requires_grad)
