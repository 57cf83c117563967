"""Which weights of a base an adapter changes, and what the merged model's files will hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import UsageError
from ...core.schema.merge import MergeConfig
from ..checkpoints.safetensors_files import Entry, list_tensors, load_tensor
from .adapter import Adapter
from .base_model import StoredWeights, empty_base

_KEPT = 2
"""Weights in pieces whose change is held: of a layer's experts, files mix the pieces of two."""


@dataclass(frozen=True, slots=True)
class MergePlan:
    """A merge that has been checked.

    Attributes:
        adapter: what changes.
        base: folder of the base.
        entries: what is written, and in which files.
        sources: name of an entry → the tensor of the base that it starts from.
        changed: name of an entry → what the adapter calls it.
        stored: how the base's files hold the weights of its model.
        config: `config.json` of the result.
    """

    adapter: Adapter
    base: Path
    entries: tuple[Entry, ...]
    sources: Mapping[str, Entry]
    changed: Mapping[str, str]
    stored: StoredWeights
    config: Mapping[str, Any]
    _pieces: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def produce(self, entry: Entry) -> Tensor:
        """The tensor of one entry."""
        tensor = load_tensor(self.base, self.sources[entry.name])
        name = self.changed.get(entry.name)
        if name is None:
            return tensor.to(entry.dtype)
        if not self.stored.converted(name):
            return self.adapter.apply(name, tensor).to(entry.dtype)
        piece = self._change(name)[entry.name]
        return (piece if name in self.adapter.replaced else tensor.float() + piece).to(entry.dtype)

    def _change(self, name: str) -> Mapping[str, Tensor]:
        """What a weight in pieces is replaced by, or what is added to it, by the pieces' names."""
        if name not in self._pieces:
            while len(self._pieces) >= _KEPT:
                self._pieces.pop(next(iter(self._pieces)))
            self._pieces[name] = self.stored.pieces(name, self.adapter.change(name))
        return self._pieces[name]


def plan_merge(adapter: Adapter, base: Path, config: MergeConfig) -> MergePlan:
    """Match an adapter's weights with those of a base.

    An adapter that changes one of two tied weights (embedding and output head) unties them: the
    result holds both.

    Raises:
        UsageError: the base is quantized, lacks a weight that the adapter changes, or has it in
            another shape.
    """
    values: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if values.get("quantization_config"):
        raise UsageError(
            f"The base '{base}' is stored quantized (quantization_config in its config.json).",
            fix="Use the adapter beside its base, or merge it with PEFT's own merge_and_unload(), "
            "which rounds.",
        )
    sources = list_tensors(base)
    model = empty_base(base, remote=config.trust_remote_code)
    adapter = adapter.on(model)
    stored = StoredWeights(model, sources, base)
    shapes = adapter.shapes()
    # Weights that are another one's, as the architecture declares them: name → the other.
    tied: dict[str, str] = dict(model.all_tied_weights_keys)
    if shapes.keys() & {*tied, *tied.values()}:
        for target, source in tied.items():
            sources.setdefault(target, sources[stored.names(source)[0]])
        stored = StoredWeights(model, sources, base)
        for table in (values, values.get("text_config")):
            if isinstance(table, dict):
                table["tie_word_embeddings"] = False
    changed: dict[str, str] = {}
    for name, shape in shapes.items():
        names = stored.names(name)
        there = stored.shape(name) if stored.converted(name) else sources[names[0]].shape
        if there != shape:
            raise UsageError(
                f"The adapter does not fit the base '{base}': '{name}' is {list(there)} there, "
                f"and the adapter is for {list(shape)}.",
                fix="Set base_hf_path to the model that it was trained on.",
            )
        changed |= dict.fromkeys(names, name)
    entries = tuple(replace(entry, name=name) for name, entry in sources.items())
    if config.torch_dtype != "auto":
        dtype = getattr(torch, config.torch_dtype)
        entries = tuple(
            replace(entry, dtype=dtype) if entry.dtype.is_floating_point else entry
            for entry in entries
        )
        values.pop("torch_dtype", None)
        values["dtype"] = config.torch_dtype
    return MergePlan(adapter, base, entries, sources, changed, stored, values)
