"""What a checkpoint is used for: a Hugging Face folder, or an adapter in PEFT's form."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import peft
import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils.hub import cached_file

from ...core.schema.model import ModelConfig
from ..model.build import base_name
from ..model.fingerprint import base_digest
from .safetensors_files import Entry, by_file, write_file, write_index
from .training_state import weights_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BASE_FILE = "base.json"
"""Beside an adapter: `{"base": name, "digest": digest}` of the model it was trained on."""
_PROCESSOR = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
_FILE_SIZE = 5 << 30
_WEIGHTS = ".safetensors"


class Base(NamedTuple):
    """The model that an adapter was trained on: its name, and its digest where it has one."""

    name: str
    digest: str | None


class Weights:
    """The weights of a model in training, in the form that others read.

    Files, names and formats are those that `save_pretrained` writes: weights that architectures
    store in another way than they compute with them (the experts of many, one by one) are put back,
    tied ones are left out, several files have an index. vLLM and `from_pretrained` load it.

    Args:
        model: the causal language model, adapters inside, laid out over the ranks.
        adapter: PEFT's wrapper of it; None in full training.
        tokenizer: saved beside the weights.
        base: the model that was started from.
        processor: files of the processor that the model takes images or sound through; they are
            copied beside the weights as they are.
        file_size: a new file is begun before one grows over so many bytes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapter: peft.PeftModel | None,
        tokenizer: PreTrainedTokenizerBase,
        base: Base | None,
        *,
        processor: Sequence[Path] = (),
        file_size: int = _FILE_SIZE,
    ) -> None:
        self._model, self._adapter, self._tokenizer, self._base = model, adapter, tokenizer, base
        self._processor = processor
        self._sources: dict[str, str] = {}
        self._entries = self._plan(file_size)

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter is trained, and not the model."""
        return self._adapter is not None

    def tensors(self) -> dict[str, Tensor]:
        """The weights by their names in the model; they share its memory."""
        return weights_of(self._model, adapter=self.is_adapter)

    def write(
        self, folder: Path, whole: Callable[[str], Tensor], *, rank: int, ranks: int
    ) -> list[Path]:
        """Write this rank's part of the files, one tensor after the other.

        Args:
            folder: takes the files.
            whole: gives a weight of the model, as a whole, on the CPU.
            rank: files are dealt out.
            ranks: among so many.

        Returns:
            The files that were written.

        Raises:
            OSError: the disk is full or the folder not writable.
        """
        written = []
        for number, (name, entries) in enumerate(by_file(self._entries).items()):
            if number % ranks == rank:
                write_file(folder / name, entries, _Producer(self._made_of, self._sources, whole))
                written.append(folder / name)
        if rank == 0 and (index := write_index(folder, self._entries)) is not None:
            written.append(index)
        return written

    def write_settings(self, folder: Path) -> list[Path]:
        """Write what stands beside the weights: configs, tokenizer, an adapter's base.

        Returns:
            The files that were written.

        Raises:
            OSError: the disk is full or the folder not writable.
        """
        if self._adapter is None:
            config: Any = copy.deepcopy(self._model.config)
            config.dtype = str(self._model.dtype).removeprefix("torch.")
            # FSDP2 makes the model an instance of a class of its own.
            config.architectures = [type(self._model).__name__.removeprefix("FSDP")]
            if self._model.is_remote_code():
                custom_object_save(self._model, folder, config=config)
            config.save_pretrained(folder)
            if self._model.can_generate():
                self._model.generation_config.save_pretrained(folder)
        else:
            settings = copy.copy(self._adapter.peft_config["default"])
            settings.inference_mode = True
            settings.save_pretrained(str(folder))
            if self._base is not None:
                record = {"base": self._base.name, "digest": self._base.digest}
                (folder / BASE_FILE).write_text(json.dumps(record, indent=2) + "\n")
        for file in self._processor:
            shutil.copyfile(file, folder / file.name)
        self._tokenizer.save_pretrained(folder)
        return [path for path in folder.iterdir() if path.is_file() and path.suffix != _WEIGHTS]

    def _plan(self, file_size: int) -> list[Entry]:
        """Every tensor that is written, each with its file; and what each is made of."""
        if self._adapter is not None:
            return [*self._plan_adapter(self._adapter)]
        left_out = set(self._model._keys_to_ignore_on_save or ())
        files, room, entries = 0, 0, []
        for name, tensor in self.tensors().items():
            if name in left_out:
                continue
            blank = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            for made, part in self._made_of({name: blank}).items():
                entry = Entry(made, part.dtype, tuple(part.shape), "")
                if entry.size > room:
                    files, room = files + 1, max(file_size, entry.size)
                room -= entry.size
                self._sources[made] = name
                entries.append(replace(entry, file=str(files)))
        if files == 1:
            return [replace(entry, file="model.safetensors") for entry in entries]
        return [
            replace(entry, file=f"model-{int(entry.file):05d}-of-{files:05d}.safetensors")
            for entry in entries
        ]

    def _plan_adapter(self, adapter: peft.PeftModel) -> Iterator[Entry]:
        blanks = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
            for name, tensor in adapter.state_dict().items()
        }
        trained = self.tensors().keys()
        inner = {
            id(blank): name.removeprefix("base_model.model.") for name, blank in blanks.items()
        }
        saved = peft.get_peft_model_state_dict(adapter, blanks, save_embedding_layers=False)
        for made, blank in saved.items():
            assert inner[id(blank)] in trained, made
            self._sources[made] = inner[id(blank)]
            yield Entry(made, blank.dtype, tuple(blank.shape), SAFETENSORS_WEIGHTS_NAME)

    def _made_of(self, weight: dict[str, Tensor]) -> dict[str, Tensor]:
        """What one weight of the model is in a file: itself under a name, or several."""
        if self._adapter is not None:
            return weight
        made: dict[str, Tensor] = revert_weight_conversion(self._model, weight)
        return made


class _Producer:
    """Makes the tensors of a file, in the order in which they were planned."""

    def __init__(
        self,
        made_of: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        sources: Mapping[str, str],
        whole: Callable[[str], Tensor],
    ) -> None:
        self._made_of, self._sources, self._whole = made_of, sources, whole
        self._source, self._made = "", dict[str, Tensor]()

    def __call__(self, entry: Entry) -> Tensor:
        source = self._sources[entry.name]
        if source != self._source:
            self._made = {}
            made = self._made_of({source: self._whole(source)})
            # An adapter's weight has its name in the model up to here.
            self._made = made if entry.name in made else {entry.name: made[source]}
            self._source = source
        return self._made[entry.name]


def find_processor(config: ModelConfig) -> list[Path]:
    """The files of the processor of the model that a run starts from; a text model has none."""
    name = base_name(config) or (config.config if isinstance(config.config, str) else None)
    if name is None:
        return []
    quiet = ("missing_entries", "connection_errors", "gated_repo")
    options: dict[str, Any] = {f"_raise_exceptions_for_{what}": False for what in quiet}
    found = (cached_file(name, f, revision=config.revision, **options) for f in _PROCESSOR)
    return [Path(file) for file in found if file is not None]


def find_base(config: ModelConfig) -> Base | None:
    """The name and digest of the model that a run starts from; None for a new model."""
    name = base_name(config)
    if name is None:
        return None
    # A hub id is in the cache by now.
    file = cached_file(name, "config.json", revision=config.revision)
    return Base(name, base_digest(Path(str(file)).parent))
