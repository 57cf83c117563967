"""A saved LoRA adapter as what it does to its base: weights it updates, weights it replaces."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import peft
from peft.tuners.lora.layer import ParamWrapper
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from ...core.errors import UsageError
from .updates import ParameterUpdate, Update

CONFIG_FILE, WEIGHTS_FILE = CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)(?:\.weight)?"
)
# Their adapters do more to the base than B·A and a magnitude.
_OTHER_METHODS = (
    *("lora_bias", "layer_replication", "trainable_token_indices"),
    *("use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config"),
    *("velora_config", "monteclora_config"),
)
# Starting points that change the base itself; the others only choose A and B.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter, loaded.

    Attributes:
        folder: where it lies.
        base: name of the model that it was trained on, as PEFT recorded it.
        config: its settings.
        updates: weight name → the low-rank update of that weight.
        replaced: weight name → the weight that was trained in full (`modules_to_save`).
    """

    folder: Path
    base: str | None
    config: peft.LoraConfig
    updates: Mapping[str, Update | ParameterUpdate]
    replaced: Mapping[str, Tensor]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The weights that it changes, and the shape that each must have in the base."""
        replaced = {name: tuple(weight.shape) for name, weight in self.replaced.items()}
        return replaced | {name: update.shape for name, update in self.updates.items()}

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """What a weight of the base becomes: as it is, replaced, updated, or both."""
        weight = self.replaced.get(name, weight)
        update = self.updates.get(name)
        return weight if update is None else update.apply(weight)

    def change(self, name: str) -> Tensor:
        """What a weight is replaced by, or, where it is updated, what is added to it."""
        if name in self.replaced:
            return self.replaced[name]
        update = self.updates[name]
        assert isinstance(update, ParameterUpdate), name  # layers are stored as they are
        return update.change()

    def on(self, model: PreTrainedModel) -> Adapter:
        """The same with the names of the parameters that it updates, which the model knows.

        PEFT's files do not say which parameter of a module a pair belongs to.

        Args:
            model: the base's architecture; adapters are put inside it and taken out again.

        Raises:
            UsageError: the model has no such parameters.
        """
        if not self.config.target_parameters:
            return self
        try:
            with _quiet():
                wrapped = peft.get_peft_model(model, self.config, low_cpu_mem_usage=True)
        except ValueError as error:
            raise UsageError(
                f"The adapter does not fit the base: {error}",
                fix="Set base_hf_path to the model that it was trained on.",
            ) from error
        updates = dict(self.updates)
        for path, module in wrapped.named_modules():
            layer = path.removeprefix(_PREFIX)
            if isinstance(module, ParamWrapper) and f"{layer}.weight" in updates:
                pair = updates.pop(f"{layer}.weight")
                name = f"{layer.replace('.base_layer', '')}.{module.parameter_name}"
                sides = (module.lora_A["default"].weight, module.lora_B["default"].weight)
                if [one.shape for one in sides] != [pair.a.shape, pair.b.shape]:
                    raise UsageError(
                        f"The adapter does not fit the base: '{name}' is "
                        f"{list(module.get_param().shape)} there, and the adapter is for "
                        f"{list(pair.b.shape)} x {list(pair.a.shape)}.",
                        fix="Set base_hf_path to the model that it was trained on.",
                    )
                updates[name] = ParameterUpdate(
                    pair.a,
                    pair.b,
                    module.scaling["default"],
                    module.num_experts,
                    module.num_experts == 1 or module._did_swap_in_out_features,
                )
        wrapped.unload()
        return replace(self, updates=updates)


def read_adapter(folder: Path) -> Adapter:
    """Load an adapter in PEFT's form.

    Raises:
        UsageError: it is damaged, or of a kind that cannot be merged exactly.
    """
    config = _read_config(folder)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (SafetensorError, FileNotFoundError) as error:
        raise UsageError(
            f"The adapter's weights cannot be read: {folder / WEIGHTS_FILE}: {error}",
            fix="Give another checkpoint of the run.",
        ) from error
    parts: dict[str, dict[str, Tensor]] = {}
    replaced: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        if match := _PART.fullmatch(name):
            parts.setdefault(match["module"], {})[match["part"]] = tensor
        else:
            # PEFT saves an adapted embedding's own weight as well, under the wrapper's name.
            replaced[name.replace(".base_layer.", ".")] = tensor
    updates = {f"{name}.weight": _update(config, name, found) for name, found in parts.items()}
    return Adapter(folder, config.base_model_name_or_path, config, updates, replaced)


def attach_adapter(model: PreTrainedModel, folder: Path) -> peft.PeftModel:
    """Put a saved adapter inside its base, in place, to compute with; it is not trained."""
    with _quiet():
        return peft.PeftModel.from_pretrained(model, str(folder))


@contextmanager
def _quiet() -> Iterator[None]:
    """PEFT reads a property that transformers has renamed, and looks for experts among layers.

    Whether the base is the right one is checked here, and not by its name.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*base_model_name_or_path. was renamed", UserWarning)
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", ".*_pattern keys did not match", RuntimeWarning)
        warnings.filterwarnings("ignore", "target_parameters=.* no parameter", RuntimeWarning)
        yield


def _read_config(folder: Path) -> peft.LoraConfig:
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder / CONFIG_FILE} cannot be read: {error}",
            fix="Give a folder that PEFT saved.",
        ) from error
    if not isinstance(config, peft.LoraConfig):
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise UsageError(
            f"'{folder}' holds an adapter of the kind {kind}.",
            fix="LoRA, rsLoRA and DoRA can be merged.",
        )
    others = [name for name in _OTHER_METHODS if getattr(config, name, None)]
    start = config.init_lora_weights
    if isinstance(start, str) and start.startswith(_CHANGED_BASE):
        others.append(f"init_lora_weights={start}")
    if others:
        raise UsageError(
            f"The adapter in '{folder}' uses {', '.join(others)}, which changes more of the base "
            "than low-rank updates do.",
            fix="Merge it with PEFT's own merge_and_unload().",
        )
    return config


def _update(config: peft.LoraConfig, module: str, parts: Mapping[str, Tensor]) -> Update:
    embedding = "embedding_A" in parts
    a, b = (parts.get(f"embedding_{side}" if embedding else side) for side in "AB")
    if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise UsageError(
            f"The adapter's part for '{module}' is no pair of matrices of one rank.",
            fix="Give another checkpoint of the run.",
        )
    rank = a.shape[0]
    alphas = config.alpha_pattern or {}
    alpha = alphas.get(get_pattern_key(list(alphas), module), config.lora_alpha)
    return Update(
        a=a,
        b=b,
        scaling=alpha / (math.sqrt(rank) if config.use_rslora else rank),
        magnitude=parts.get("magnitude_vector"),
        transposed=embedding or config.fan_in_fan_out,
    )
