"""Weights for a model that is sharded already, its adapters among them: read, or made anew.

The reading is transformers' own: it knows how the tensors of a file become those of a model (the
experts of many architectures are stored one by one), and reads of each file only this rank's part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import convert_and_load_state_dict_in_model
from transformers.modeling_utils import LoadStateDictConfig
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from ...core.errors import UsageError
from ..model.build import check_loaded, unloadable
from .meta import fill, remake
from .tensors import local, piece_of, whole


def load_weights(
    model: PreTrainedModel, source: str, revision: str | None, device: torch.device
) -> None:
    """Read this rank's pieces of a model's weights.

    Args:
        model: laid out over the ranks, its weights on `meta`; adapters may be inside.
        source: a folder or a hub id with safetensors.
        revision: of a hub id.
        device: where the pieces lie.

    Raises:
        UsageError: the weights cannot be read or do not belong to this architecture.
    """
    with ExitStack() as stack:
        stack.enter_context(_without_adapters(model))
        trained = {name: weight.requires_grad for name, weight in model.named_parameters()}
        slices: dict[str, Any] = {}
        try:
            for file in _files(source, revision):
                opened = stack.enter_context(safe_open(file, framework="pt", device="cpu"))
                slices.update({name: opened.get_slice(name) for name in opened.keys()})  # noqa: SIM118  # no dict
            loading, _ = convert_and_load_state_dict_in_model(
                model,
                slices,
                LoadStateDictConfig(
                    device_map={"": device},
                    dtype=model.dtype,
                    weight_mapping=cast(Any, _stored_otherwise(model)),
                ),
            )
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            raise unloadable(source, "model", error) from error
        found = model.all_tied_weights_keys.keys() | _empty(model)
        misshapen = (name for name, *_ in loading.mismatched_keys)
        check_loaded(model, source, loading.missing_keys - found, misshapen)
        fill(model, device)
        for name, weight in model.named_parameters():
            # What is loaded where nothing is sharded is trainable anew.
            weight.requires_grad_(trained[name])
    # Whatever it is told, transformers leaves pieces on the GPUs of their mesh.
    remake(model, lambda p: p.device.type != device.type, lambda p: p.to(device))
    _copy_mapped(model)
    _fill_copies(model)


def make_weights(model: PreTrainedModel, device: torch.device) -> None:
    """Initialize this rank's pieces of a new model's weights.

    Args:
        model: laid out over the ranks, or on one process; adapters may be inside.
        device: where the pieces lie.
    """
    with _without_adapters(model):
        fill(model, device)
    _fill_copies(model)


def _empty(model: nn.Module) -> set[str]:
    """The weights of which this rank has nothing: experts, where there are more ranks than those.

    transformers joins the experts that a rank reads, and does not count none of them as loaded.
    """
    return {name for name, weight in model.state_dict().items() if not local(weight).numel()}


def _stored_otherwise(model: PreTrainedModel) -> list[Any]:
    """How the tensors of files become weights; transformers finds the rules by the class's name.

    FSDP2 makes each module an instance of a class of its own.
    """
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    classes = [type(module) for module in sharded]
    for module, kind in zip(sharded, classes, strict=True):
        module.__class__ = kind.__bases__[1]
    try:
        return list(get_model_conversion_mapping(model))
    finally:
        for module, kind in zip(sharded, classes, strict=True):
            module.__class__ = kind


def _files(source: str, revision: str | None) -> list[str]:
    options: dict[str, Any] = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
    if index := cached_file(source, "model.safetensors.index.json", **options):
        files: list[str] = get_checkpoint_shard_files(source, index, revision=revision)[0]
        return files
    if file := cached_file(source, "model.safetensors", **options):
        return [str(file)]
    raise UsageError(
        f"'{source}' has no safetensors, of which each process reads its part.",
        fix="Save it again with transformers: from_pretrained(...).save_pretrained(FOLDER).",
    )


@contextmanager
def _without_adapters(model: nn.Module) -> Iterator[None]:
    """Put the plain layers in the places of those that PEFT wraps: so the names are the files'."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    wrapped: list[tuple[nn.Module, str, nn.Module]] = []
    for parent in list(model.modules()):
        if isinstance(parent, BaseTunerLayer | AuxiliaryTrainingWrapper):
            continue
        for name, child in parent._modules.items():
            if isinstance(child, BaseTunerLayer):
                wrapped.append((parent, name, child))
                parent._modules[name] = child.get_base_layer()
            elif isinstance(child, AuxiliaryTrainingWrapper):
                wrapped.append((parent, name, child))
                parent._modules[name] = child.original_module
    try:
        yield
    finally:
        for parent, name, child in wrapped:
            parent._modules[name] = child


def _copy_mapped(model: nn.Module) -> None:
    """Weights on a CPU may still be those of the file, which another process may write anew."""
    remake(model, lambda p: p.device.type == "cpu", torch.clone)


def _fill_copies(model: nn.Module) -> None:
    """What adapters take from the weights they stand beside, which had no values before."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    for module in model.modules():
        if isinstance(module, LoraLayer):
            base: Any = module.get_base_layer()
            magnitude: Any
            for magnitude in module.lora_magnitude_vector.values():
                weight = whole(base.weight.detach()).float()
                # An adapter adds nothing at first, so the norm is that of the layer (DoRA, 4.1).
                norms = torch.linalg.norm(weight.T if module.fan_in_fan_out else weight, dim=1)
                piece = piece_of(norms.to(magnitude.weight.dtype), magnitude.weight)
                magnitude.weight = nn.Parameter(piece, magnitude.weight.requires_grad)
        if isinstance(module, ModulesToSaveWrapper):
            originals = dict(module.original_module.named_parameters())
            for copy in module.modules_to_save.values():
                for name, parameter in copy.named_parameters():
                    owner = copy.get_submodule(name.rpartition(".")[0])
                    value = nn.Parameter(originals[name].detach().clone(), parameter.requires_grad)
                    owner._parameters[name.rpartition(".")[2]] = value
