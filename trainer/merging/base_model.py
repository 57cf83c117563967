"""The architecture of a base: of which class it is, and what its files call its weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)

from ...core.errors import UsageError
from ..model.kinds import loader_of, trained_kind


def load_base(folder: Path, dtype: torch.dtype, *, remote: bool) -> PreTrainedModel:
    """The model of a folder, on the CPU, for computing with it."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=remote)
    loader = loader_of(trained_kind(config))
    model = loader.from_pretrained(folder, dtype=dtype, trust_remote_code=remote)
    # The faster products of experts know no float64.
    model.set_experts_implementation("eager")
    model.train(False)
    return cast(PreTrainedModel, model)


def empty_base(folder: Path, *, remote: bool) -> PreTrainedModel:
    """The model of a folder without its weights (on the device `meta`)."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=remote)
    with torch.device("meta"):
        model = loader_of(trained_kind(config)).from_config(config, trust_remote_code=remote)
    return cast(PreTrainedModel, model)


class StoredWeights:
    """What the files of a base call the weights of its model, by transformers' rules of loading.

    Some are stored under other names, some in several pieces (the experts of a layer one by one)
    or in another layout.

    Args:
        model: the architecture, without weights.
        stored: the names in the files.
        base: the folder, for messages.
    """

    def __init__(self, model: PreTrainedModel, stored: Iterable[str], base: Path) -> None:
        self._model, self._base = model, base
        self._stored = frozenset(stored)
        self._shapes = {name: tuple(w.shape) for name, w in model.state_dict().items()}
        self._names: dict[str, list[str]] = {}
        self._converted: set[str] = set()
        rules: list[Any] = list(get_model_conversion_mapping(model) or ())
        renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        joined = [rule for rule in converters if len(rule.target_patterns) > 1]
        self._joined = [(part, rule) for rule in joined for part in rule.target_patterns]
        known: dict[str, Any] = model.state_dict()
        for name in sorted(self._stored):
            prefix = model.base_model_prefix
            loaded, converter = rename_source_key(name, renamings, converters, prefix, known)
            if loaded not in known and name in known:
                loaded, converter = name, None
            self._names.setdefault(loaded, []).append(name)
            if converter is not None:
                self._converted.add(loaded)

    def names(self, weight: str) -> list[str]:
        """What the files call a weight of the model; several where it is stored in pieces.

        Raises:
            UsageError: they have no such weight, or hold it in one piece with others.
        """
        if weight in self._stored:
            return [weight]
        if rule := next((rule for part, rule in self._joined if part in weight), None):
            raise UsageError(
                f"The base '{self._base}' holds '{weight}' in one piece with others "
                f"('{rule.source_patterns[0]}'), which cannot be merged a tensor at a time.",
                fix="Merge it with PEFT's own merge_and_unload().",
            )
        # Some were saved without the outermost module's name.
        found = self._names.get(weight) or self._names.get(weight.partition(".")[2])
        if found is None:
            said = (
                f"The adapter does not fit the base '{self._base}', which has no weight '{weight}'."
            )
            raise UsageError(
                said,
                fix="Set base_hf_path to the model that it was trained on.",
            )
        return found

    def converted(self, weight: str) -> bool:
        """Whether the files hold a weight in pieces or in another layout."""
        return weight not in self._stored and weight in self._converted

    def shape(self, weight: str) -> tuple[int, ...]:
        """The shape that a weight has in the model."""
        return self._shapes[weight]

    def pieces(self, weight: str, value: Tensor) -> Mapping[str, Tensor]:
        """A value of a converted weight as the files would hold it, by their names.

        Raises:
            UsageError: they hold it in a way that transformers reads and does not write.
        """
        made: dict[str, Tensor] = revert_weight_conversion(self._model, {weight: value})
        names = self.names(weight)
        if made.keys() != set(names):
            raise UsageError(
                f"The base '{self._base}' holds '{weight}' in an older layout: '{names[0]}'.",
                fix="Load it with transformers once and save it with save_pretrained().",
            )
        return made
