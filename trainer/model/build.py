"""Building or loading the causal language model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available, is_flash_attn_3_available

from ...core.errors import UsageError
from ...core.schema.model import FreezeConfig, ModelConfig
from ..parallel.meta import empty_model, fill
from ..runtime import RuntimeConfig
from .attention import DOCUMENTS, attends_by_document
from .kinds import SCORE, loader_of
from .quantize import is_quantized, keep_for_training, loading_options

_TOWERS = {
    "vision_tower": ("vision_tower", "vision_model", "visual"),
    "audio_tower": ("audio_tower", "audio_model"),
    "language_model": ("language_model", "text_model"),
}


def load_model_config(config: ModelConfig) -> PretrainedConfig:
    """The architecture that `model` names, without its weights.

    Raises:
        UsageError: there is no such model, or it is of an unknown kind.
    """
    loaded: PretrainedConfig
    if isinstance(config.config, dict):
        values = dict(config.config)
        try:
            loaded = AutoConfig.for_model(values.pop("model_type"), **values)
            return loaded
        except (ValueError, TypeError) as error:
            raise UsageError(f"model.config is no architecture: {error}") from error
    source = str(config.config or config.pretrained_model_name_or_path)
    try:
        loaded = AutoConfig.from_pretrained(
            source, revision=config.revision, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise unloadable(source, "model", error) from error
    return loaded


def build_model(
    config: ModelConfig,
    runtime: RuntimeConfig,
    weights: str | None,
    quantization: str | None = None,
) -> PreTrainedModel:
    """The model on its device, in the format it is trained in.

    Args:
        config: which model.
        runtime: architecture, format and attention kernel.
        weights: folder or hub id to load; None initializes the model anew.
        quantization: `nf4` or `int8` keeps the weights of linear layers so; None as they are.

    Raises:
        UsageError: the weights cannot be read, or do not belong to this architecture.
    """
    options: dict[str, Any] = {
        "dtype": runtime.dtype,
        "attn_implementation": runtime.attn_impl,
        "trust_remote_code": runtime.own_code,
        **loading_options(quantization, runtime.dtype, runtime.device),
    }
    if weights is None:
        model = empty_model(runtime)
        fill(model, runtime.device)
        return model
    try:
        loaded: Any = loader_of(runtime.kind).from_pretrained(
            weights,
            config=runtime.model_config,
            revision=config.revision,
            output_loading_info=True,
            **options,
        )
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise unloadable(weights, "model", error) from error
    model, loading = loaded
    check_loaded(model, weights, loading["missing_keys"])
    if is_quantized(model):
        keep_for_training(model)
        # Not mapped, and already where it belongs.
        return cast(PreTrainedModel, model)
    if runtime.device.type == "cpu":
        # They are mapped from the file, and a file that is written anew would change them.
        model._apply(torch.clone)
    return cast(PreTrainedModel, model.to(runtime.device))


def base_name(config: ModelConfig) -> str | None:
    """What an adapter records as its base: a hub id, or a folder that is found from anywhere."""
    name = config.pretrained_model_name_or_path
    return str(Path(name).absolute()) if name is not None and Path(name).is_dir() else name


def freeze(model: PreTrainedModel, config: FreezeConfig) -> None:
    """Leave the named towers of a multimodal model untrained; a text model has none."""
    for name in frozen_towers(model, config):
        model.get_submodule(name).requires_grad_(False)


def frozen_towers(model: nn.Module, config: FreezeConfig) -> list[str]:
    """The names of the modules that `freeze` leaves untrained."""
    chosen = {name for part, names in _TOWERS.items() if getattr(config, part) for name in names}
    return [name for name, _ in model.named_modules() if name.rpartition(".")[2] in chosen]


def attention_of(
    config: ModelConfig, model_class: type[PreTrainedModel], architecture: PretrainedConfig
) -> str:
    """The kernel that the config asks for, or the fastest that needs no other package.

    Raises:
        UsageError: the package of the kernel, or the GPU that it runs on, is not here, or it
            computes another model.
    """
    wanted = config.attn_implementation
    if wanted is None:
        return default_attention(model_class, architecture)
    if wanted == "sdpa" and _biased(architecture):
        raise UsageError(
            "model.attn_implementation: sdpa leaves out the biases of "
            f"'{architecture.model_type}'.",
            fix="Leave the key out, or set model.attn_implementation=eager.",
        )
    there = {
        "flash_attention_2": is_flash_attn_2_available,
        "flash_attention_3": is_flash_attn_3_available,
    }
    if wanted in there and not there[wanted](kernels_fallback_ok=True):
        raise UsageError(
            f"model.attn_implementation: {wanted} needs the package flash-attn and a GPU.",
            fix="Leave the key out: what is taken then needs no other package.",
        )
    known = {"eager": True, "sdpa": model_class._supports_sdpa}
    if not known.get(wanted, model_class._supports_flash_attn):
        raise UsageError(
            f"model.attn_implementation: {wanted} does not compute '{architecture.model_type}'.",
            fix="Leave the key out, or set model.attn_implementation=eager.",
        )
    return wanted


def default_attention(model_class: type[PreTrainedModel], config: PretrainedConfig) -> str:
    """The fastest kernel that the model supports without another package."""
    if attends_by_document(model_class, config):
        return DOCUMENTS
    return "sdpa" if model_class._supports_sdpa and not _biased(config) else "eager"


def _biased(config: PretrainedConfig) -> bool:
    """Whether a model gives biases (ALiBi) to sdpa with a mask alone, and it gets none here."""
    return bool(getattr(config, "alibi", False))


def check_vocabulary(config: PretrainedConfig, tokens: int) -> None:
    """Raise UsageError if the tokenizer has ids that the model has no embedding for."""
    size = config.get_text_config().vocab_size
    if tokens > size:
        raise UsageError(
            f"The tokenizer has {tokens} tokens, the model has embeddings for {size}.",
            fix="Use the model's own tokenizer, or set model.config.vocab_size for a new model.",
        )


def unloadable(source: str, what: str, error: Exception) -> UsageError:
    """The error of a model or tokenizer that cannot be loaded, in one line."""
    first = str(error).strip().partition("\n")[0]
    if source.startswith(("/", "./", "../", "~")) and not Path(source).exists():
        first = "there is no such folder."
    return UsageError(
        f"The {what} '{source}' cannot be loaded: {first}",
        fix="Give a folder saved by save_pretrained, or a hub id that this machine can reach "
        "(HF_TOKEN for gated models).",
    )


def check_loaded(
    model: nn.Module, source: str, missing: Iterable[str], misshapen: Iterable[str] = ()
) -> None:
    """See that a model found all of its weights; the score of a reward model begins anew.

    Args:
        model: what was loaded.
        source: from where.
        missing: the weights that were not there.
        misshapen: those that have another shape there.

    Raises:
        UsageError: weights and architecture do not belong together.
    """
    lacking = sorted(name for name in missing if not name.startswith(f"{SCORE}."))
    if wrong := lacking or sorted(misshapen):
        what = "lacks" if lacking else "has weights of another shape than"
        raise UsageError(
            f"'{source}' {what} {len(wrong)} weights of {type(model).__name__}, among them "
            f"{wrong[0]}.",
            fix="Check that its config.json and its safetensors belong together.",
        )
