"""Which modules of a model an adapter stands beside, and which are trained whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import peft
import torch
from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
from peft.utils.transformers_weight_conversion import (
    convert_peft_adapter_state_dict_for_transformers as as_peft_loads,
)
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ...core.errors import UsageError
from ...core.schema.adapter import LoraConfig, matching
from ...core.schema.model_facts import model_facts
from ...core.text import did_you_mean
from .kinds import SCORE


def target_modules(
    model: PreTrainedModel, config: LoraConfig, frozen: Sequence[str] = ()
) -> list[str]:
    """The adapted layers: the last parts of their names where these say it all, else full names.

    Args:
        model: the base.
        config: which of its layers are wanted.
        frozen: names of modules that are left untrained, and so get no adapters either.

    Raises:
        UsageError: no layer has the name asked for, or none is left.
    """
    head = score_of(model) or model.get_output_embeddings()
    linear = _linear(model)
    if config.match_all_linear:
        chosen = {name for name, module in linear.items() if module is not head}
    else:
        chosen = {n for pattern in config.target_modules for n in _named(model, linear, pattern)}
    for pattern in config.exclude_modules:
        chosen -= set(matching(linear, pattern))
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


def excluding_nothing(model: PreTrainedModel, config: LoraConfig) -> list[str]:
    """The entries of `exclude_modules` that mean no layer of the model."""
    return [pattern for pattern in config.exclude_modules if not matching(_linear(model), pattern)]


def without_experts(model: PreTrainedModel, targets: list[str]) -> list[str]:
    """The adapted layers without those whose names PEFT takes for the experts of a layer.

    Where transformers keeps the experts of a layer in one tensor, PEFT reads the names that they
    had before (`gate_proj`, `w1`) as theirs, also where a dense layer or a shared expert has them.
    Where they are asked for by name, the config is refused before (`experts_adapted`).
    """
    taken = model_facts(model.config.to_dict()).expert_layers
    return [name for name in targets if _leaf(name) not in taken]


def _linear(model: PreTrainedModel) -> dict[str, nn.Module]:
    """The linear layers that can be adapted, by name."""
    found: dict[str, nn.Module] = {}
    known: dict[str, bool] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | Conv1D) or _computes_more(module):
            continue
        # Layers of one place in their block are alike.
        place = re.sub(r"\d+", "0", name)
        if place not in known:
            known[place] = _is_read_back(model, name)
        if known[place]:
            found[name] = module
    return found


def _computes_more(module: nn.Module) -> bool:
    """Whether an architecture has made more of a linear layer: a router, one product a group."""
    kind = type(module)
    own = kind.__module__.startswith("transformers.models.") and "forward" in vars(kind)
    return own and kind.__name__ != "FalconLinear"  # It only orders its sums otherwise.


def _is_read_back(model: PreTrainedModel, name: str) -> bool:
    """Whether PEFT adapts a layer, and loads its adapter into the same.

    As it loads one, it gives it the name that the model has for what a published file calls so: of
    some architectures that is another name also for what bears the model's own.
    """
    settings = peft.LoraConfig(target_modules=[_leaf(name)])
    keys = [f"base_model.model.{name}.lora_{side}.weight" for side in "AB"]
    try:
        _check_lora_target_modules_mamba(settings, model, _leaf(name))
        read = as_peft_loads(model, settings, {key: torch.zeros(1, 1) for key in keys})
    except (ValueError, RuntimeError):
        return False
    return read.keys() == set(keys)


def _named(model: PreTrainedModel, names: Iterable[str], pattern: str) -> list[str]:
    found = matching(names, pattern)
    linear = (n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D))
    if not found and matching(linear, pattern):
        raise UsageError(
            f"'{pattern}' names layers that PEFT cannot adapt in '{model.config.model_type}'.",
            fix=f"It can adapt {', '.join(sorted({_leaf(name) for name in names}))}.",
        )
    if not found:
        leaves = sorted({_leaf(name) for name in names})
        raise UsageError(
            f"No linear layer of the model is called '{pattern}'.",
            fix=f"{did_you_mean(pattern, leaves)} It has {', '.join(leaves)}.".strip(),
        )
    return found


def score_of(model: PreTrainedModel) -> nn.Module | None:
    """What a reward model has in place of an output head."""
    score = getattr(model, SCORE, None)
    return score if isinstance(score, nn.Module) else None


def saved_whole(model: PreTrainedModel, config: LoraConfig) -> list[str]:
    """The modules that are trained in full: those of the config, and a score, which is new."""
    names = _existing(model, config.modules_to_save)
    return names if score_of(model) is None or SCORE in names else [*names, SCORE]


def _existing(model: nn.Module, names: Sequence[str]) -> list[str]:
    there = [name for name, _ in model.named_modules() if name]
    known = {_leaf(name) for name in there}
    for name in names:
        # PEFT takes an entry for the end of a name, and is silent where there is none such.
        if _leaf(name) not in known or not any(one.endswith(name) for one in there):
            raise UsageError(
                f"peft.modules_to_save names '{name}', which the model does not have.",
                fix=did_you_mean(name, known) or f"It has {', '.join(sorted(known))}.",
            )
    return list(names)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]
