"""What a checkpoint holds of the model: a Hugging Face folder, or an adapter in PEFT's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import peft
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils.hub import cached_file

from ..core.schema.model import ModelConfig
from .base import base_digest
from .model import base_name
from .parallel.tensors import whole_on_main

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE_FILE = "base.json"
"""Beside an adapter: `{"base": name, "base_digest": digest}` of the model it was trained on."""


class Base(NamedTuple):
    """The model that an adapter was trained on: its name, and its digest where it has one."""

    name: str
    digest: str | None


class Weights:
    """Saves the model as it is in training.

    Args:
        model: the causal language model, adapters inside.
        adapter: PEFT's wrapper of it; None in full training.
        tokenizer: saved beside the weights.
        base: the model that was started from.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapter: peft.PeftModel | None,
        tokenizer: PreTrainedTokenizerBase,
        base: Base | None,
    ) -> None:
        self._model, self._adapter, self._tokenizer, self._base = model, adapter, tokenizer, base

    def save(self, folder: Path | None) -> None:
        """Write safetensors in Hugging Face form, with the tokenizer, into a folder that exists.

        All ranks call it together, as each holds a piece of the weights.

        Args:
            folder: None on the ranks that do not write.

        Raises:
            OSError: the disk is full or the folder not writable.
        """
        if self._adapter is None:
            tied = self._model.all_tied_weights_keys
            state = {k: v for k, v in self._model.state_dict().items() if k not in tied}
            state = whole_on_main(state, main=folder is not None)
            if folder is None:
                return
            self._model.save_pretrained(folder, state_dict=state)
        else:
            state = peft.get_peft_model_state_dict(self._adapter)
            state = whole_on_main(state, main=folder is not None)
            if folder is None:
                return
            _save_adapter(self._adapter, state, folder)
            if self._base is not None:
                record = {"base": self._base.name, "base_digest": self._base.digest}
                (folder / BASE_FILE).write_text(json.dumps(record, indent=2) + "\n")
        self._tokenizer.save_pretrained(folder)


def find_base(config: ModelConfig) -> Base | None:
    """The name and digest of the model that a run starts from; None for a new model."""
    name = base_name(config)
    if name is None:
        return None
    # A hub id is in the cache by now.
    file = cached_file(name, "config.json", revision=config.revision)
    return Base(name, base_digest(Path(str(file)).parent))


def _save_adapter(adapter: peft.PeftModel, state: dict[str, Tensor], folder: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = adapter.peft_config["default"]
    was_training, config.inference_mode = config.inference_mode, True
    config.save_pretrained(str(folder))
    config.inference_mode = was_training
