"""A saved LoRA adapter as what it does to its base: weights it updates, weights it replaces."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from ...core.errors import UsageError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_PART = re.compile(
    r"(?P<module>.+)\.lora_(?P<part>A|B|embedding_A|embedding_B|magnitude_vector)(?:\.weight)?"
)
# Their adapters do more to the base than B·A and a magnitude.
_OTHER_METHODS = (
    *("lora_bias", "layer_replication", "target_parameters", "trainable_token_indices"),
    *("use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config"),
    *("velora_config", "monteclora_config"),
)
# Starting points that change the base itself; the others only choose A and B.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class Update:
    """What a low-rank pair does to one weight: W + scaling·B·A, in DoRA with a magnitude.

    LoRA: arXiv:2106.09685, equation 3. DoRA: arXiv:2402.09353, equation 5.

    Attributes:
        a: [rank, in].
        b: [out, rank].
        scaling: alpha/rank, or alpha/√rank (rsLoRA, arXiv:2312.03732).
        magnitude: [out], the norm that each row of W + scaling·B·A is brought to; None in LoRA.
        transposed: whether the layer keeps its weight as [in, out]: embeddings and GPT-2's Conv1D.
    """

    a: Tensor
    b: Tensor
    scaling: float
    magnitude: Tensor | None
    transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the weight that it fits."""
        out, into = self.b.shape[0], self.a.shape[1]
        return (into, out) if self.transposed else (out, into)

    def apply(self, weight: Tensor) -> Tensor:
        """The merged weight, float32, in the shape of `weight`."""
        base = weight.float().T if self.transposed else weight.float()
        merged = torch.addmm(base, self.b.float(), self.a.float(), alpha=self.scaling)
        if self.magnitude is not None:
            merged *= (self.magnitude.float() / merged.norm(dim=1)).unsqueeze(1)
        return merged.T if self.transposed else merged


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter, loaded.

    Attributes:
        folder: where it lies.
        base: name of the model that it was trained on, as PEFT recorded it.
        updates: weight name → the low-rank update of that weight.
        replaced: weight name → the weight that was trained in full (`modules_to_save`).
    """

    folder: Path
    base: str | None
    updates: Mapping[str, Update]
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
    return Adapter(folder, config.base_model_name_or_path, updates, replaced)


def attach_adapter(model: PreTrainedModel, folder: Path) -> peft.PeftModel:
    """Put a saved adapter inside its base, in place, to compute with; it is not trained."""
    with warnings.catch_warnings():
        # PEFT reads a property that transformers has renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return peft.PeftModel.from_pretrained(model, str(folder))


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
