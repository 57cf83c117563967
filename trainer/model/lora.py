"""Low-rank adapters (arXiv:2106.09685) inside a model, by the PEFT library."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import peft
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...core.errors import UsageError
from ...core.schema.adapter import LoraConfig
from ...core.schema.model import ModelConfig
from ..lines import say
from ..parallel.tensors import piece_of
from .build import base_name, frozen_towers
from .lora_linear import LoraLinear
from .quantize import is_quantized
from .targets import excluding_nothing, saved_whole, score_of, target_modules, without_experts

# https://github.com/vllm-project/vllm/blob/v0.26.0/vllm/lora/peft_helper.py and config/lora.py
_SERVED = 512


def check_adapter(model: PreTrainedModel, config: LoraConfig, base: ModelConfig) -> None:
    """Find wrong names in an adapter's settings, and say what one may not expect of them.

    Args:
        model: the base, or its empty likeness: names and kinds of its modules are all that counts.
        config: the adapter.
        base: where the model is from.

    Raises:
        UsageError: no layer has the name asked for, or it is one that cannot be adapted.
    """
    _settings(model, config, base)
    for name in excluding_nothing(model, config):
        say(
            "tunedeck: warning: peft.exclude_modules: no linear layer of the model is called "
            f"'{name}'"
        )
    if reasons := list(_not_served(config)):
        say(
            f"tunedeck: vLLM loads no adapter with {' and '.join(reasons)}: to serve it there, "
            "merge it first (convert/merge_lora)"
        )


def _not_served(config: LoraConfig) -> Iterator[str]:
    """What of an adapter's settings keeps vLLM from loading it, by the key of the config."""
    if config.use_dora:
        yield "peft.use_dora"
    if config.modules_to_save:
        yield "peft.modules_to_save"
    if config.dim > _SERVED:
        yield f"peft.dim over {_SERVED}"


def _settings(model: PreTrainedModel, config: LoraConfig, base: ModelConfig) -> peft.LoraConfig:
    targets = target_modules(model, config, frozen_towers(model, base.freeze))
    return peft.LoraConfig(
        r=config.dim,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # PEFT scales by it, whole or not
        lora_dropout=config.dropout,
        target_modules=without_experts(model, targets),
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        modules_to_save=saved_whole(model, config) or None,
        base_model_name_or_path=base_name(base),
        revision=base.revision,
        task_type=peft.TaskType.SEQ_CLS if score_of(model) else peft.TaskType.CAUSAL_LM,
    )


def add_adapter(model: PreTrainedModel, config: LoraConfig, base: ModelConfig) -> peft.PeftModel:
    """Freeze a model and put adapters beside its linear layers.

    Args:
        model: the base; the adapters are put inside it, in place.
        config: the adapter.
        base: where the model is from, recorded in `adapter_config.json`.

    Returns:
        PEFT's wrapper, which saves and restores the adapter. The model itself goes on being
        called: it holds the adapters.

    Raises:
        UsageError: as `check_adapter` does.
    """
    settings = _settings(model, config, base)
    if not is_quantized(model):
        settings._register_custom_module({nn.Linear: LoraLinear})
    with warnings.catch_warnings():
        # PEFT reads a property that transformers has renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "The PEFT config's `base_model_name_or_path`")
        adapter = peft.get_peft_model(model, settings)
    # PEFT took the name that the model was loaded by, which may be a path from where this runs.
    adapter.peft_config["default"].base_model_name_or_path = base_name(base)
    return adapter


def load_adapter(adapter: peft.PeftModel, folder: Path) -> None:
    """Put the weights of an adapter in PEFT's form into one of the same shape.

    Raises:
        UsageError: the folder holds no adapter, or one of another shape.
    """
    file = folder / SAFETENSORS_WEIGHTS_NAME
    fix = "Use the peft settings that it was trained with."
    if not file.is_file():
        raise UsageError(f"'{folder}' holds no adapter.", fix=fix)
    try:
        saved = load_file(file)
    except SafetensorError as error:
        raise UsageError(
            f"The adapter '{file}' cannot be read: {error}",
            fix="Give another checkpoint of the run.",
        ) from error
    wanted: dict[str, Tensor] = peft.get_peft_model_state_dict(adapter, save_embedding_layers=False)
    if unknown := sorted(saved.keys() - wanted.keys()):
        raise UsageError(
            f"The adapter in '{folder}' has weights that peft does not ask for: {unknown[0]}.",
            fix=fix,
        )
    for name, weight in wanted.items():
        if name not in saved or saved[name].shape != weight.shape:
            raise UsageError(
                f"The adapter in '{folder}' has another shape than peft asks for.", fix=fix
            )
        # All of them share their memory with the adapter.
        weight.detach().copy_(piece_of(saved[name], weight))
