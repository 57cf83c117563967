"""Low-rank adapters (arXiv:2106.09685) inside a model, by the PEFT library."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import peft
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ...core.errors import UsageError
from ...core.schema.adapter import LoraConfig
from ...core.schema.model import ModelConfig
from ...core.text import did_you_mean
from ..merging.adapter import WEIGHTS_FILE
from ..parallel.tensors import piece_of
from ..reporting.metrics import say
from .build import base_name, frozen_towers
from .kinds import SCORE
from .lora_linear import LoraLinear
from .quantize import is_quantized


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
        UsageError: no layer has the name asked for.
    """
    targets = target_modules(model, config, frozen_towers(model, base.freeze))
    settings = peft.LoraConfig(
        r=config.dim,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # PEFT scales by it, whole or not
        lora_dropout=config.dropout,
        target_modules=_without_experts(model, config, targets),
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        modules_to_save=_saved_whole(model, config) or None,
        base_model_name_or_path=base_name(base),
        revision=base.revision,
        task_type=peft.TaskType.SEQ_CLS if _score(model) else peft.TaskType.CAUSAL_LM,
    )
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


def _without_experts(model: PreTrainedModel, config: LoraConfig, targets: list[str]) -> list[str]:
    """The adapted layers without those whose names PEFT takes for the experts of a layer.

    Where transformers keeps the experts of a layer in one tensor, PEFT reads the names that they
    had before (`gate_proj`, `w1`) as theirs, also where a dense layer or a shared expert has them.

    Raises:
        UsageError: such a layer was asked for by name.
    """
    tried = peft.LoraConfig(target_modules=targets)
    try:
        convert_peft_config_for_transformers(tried, model, None)
        lost = sorted(set(targets) - set(tried.target_modules or ()))
    except ValueError:
        lost = sorted(targets)
    if not lost:
        return targets
    named = ", ".join(sorted({_leaf(name) for name in lost}))
    if not config.match_all_linear:
        raise UsageError(
            f"peft.target_modules: {named} would mean the experts of '{model.config.model_type}', "
            "which cannot be adapted.",
            fix="Name layers of the attention, or set peft.modules_to_save to train experts whole.",
        )
    say(f"tunedeck: warning: peft: experts get no adapters, nor do layers of their names ({named})")
    return [name for name in targets if name not in lost]


def load_adapter(adapter: peft.PeftModel, folder: Path) -> None:
    """Put the weights of an adapter in PEFT's form into one of the same shape.

    Raises:
        UsageError: the folder holds no adapter, or one of another shape.
    """
    file = folder / WEIGHTS_FILE
    fix = "Use the peft settings that it was trained with."
    if not file.is_file():
        raise UsageError(f"'{folder}' holds no adapter.", fix=fix)
    saved = load_file(file)
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


def target_modules(
    model: PreTrainedModel, config: LoraConfig, frozen: Sequence[str] = ()
) -> list[str]:
    """The adapted layers: the last parts of their names where these say it all, else full names.

    Args:
        model: the base.
        config: which of its layers are wanted.
        frozen: names of modules that are left untrained, and so get no adapters either.

    Raises:
        UsageError: no layer, or a layer to exclude, has the name asked for.
    """
    head = _score(model) or model.get_output_embeddings()
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    if config.match_all_linear:
        chosen = {name for name, module in linear.items() if module is not head}
    else:
        chosen = {n for pattern in config.target_modules for n in _matching(linear, pattern)}
    for pattern in config.exclude_modules:
        chosen -= set(_matching(linear, pattern))
    if not chosen:
        raise UsageError(
            "peft.exclude_modules leaves no layer to adapt.", fix="Exclude fewer layers."
        )
    chosen = {name for name in chosen if not f"{name}.".startswith(tuple(f"{f}." for f in frozen))}
    if not chosen:
        raise UsageError(
            f"peft.target_modules names layers of '{frozen[0]}' alone, which model.freeze leaves "
            "untrained.",
            fix="Name layers of the language model, or set model.freeze for that part to false.",
        )
    leaves = {_leaf(name) for name in chosen}
    # PEFT looks at the names of all modules: a number is a layer here and a block there.
    covered = {name for name, _ in model.named_modules() if _leaf(name) in leaves}
    return sorted(leaves if covered == chosen else chosen)


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    """Names that a wildcard matches in full, or that end with what was written."""
    found = [
        name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")
    ]
    if not found:
        leaves = sorted({_leaf(name) for name in names})
        raise UsageError(
            f"No linear layer of the model is called '{pattern}'.",
            fix=f"{did_you_mean(pattern, leaves)} It has {', '.join(leaves)}.".strip(),
        )
    return found


def _score(model: PreTrainedModel) -> nn.Module | None:
    """What a reward model has in place of an output head."""
    score = getattr(model, SCORE, None)
    return score if isinstance(score, nn.Module) else None


def _saved_whole(model: PreTrainedModel, config: LoraConfig) -> list[str]:
    """The modules that are trained in full: those of the config, and a score, which is new."""
    names = _existing(model, config.modules_to_save)
    return names if _score(model) is None or SCORE in names else [*names, SCORE]


def _existing(model: nn.Module, names: Sequence[str]) -> list[str]:
    known = {_leaf(name) for name, _ in model.named_modules() if name}
    for name in names:
        if _leaf(name) not in known:
            raise UsageError(
                f"peft.modules_to_save names '{name}', which the model does not have.",
                fix=did_you_mean(name, known) or f"It has {', '.join(sorted(known))}.",
            )
    return list(names)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
