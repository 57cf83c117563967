"""Which weights of a base an adapter changes, and what the merged model's files will hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from ...core.errors import UsageError
from ...core.schema.merge import MergeConfig
from .adapter import Adapter
from .shards import Entry, list_tensors, load_tensor


@dataclass(frozen=True, slots=True)
class MergePlan:
    """A merge that has been checked.

    Attributes:
        adapter: what changes.
        base: folder of the base.
        entries: what is written, and in which files.
        sources: name of an entry → the tensor of the base that it starts from.
        changed: name of an entry → what the adapter calls it.
        config: `config.json` of the result.
    """

    adapter: Adapter
    base: Path
    entries: tuple[Entry, ...]
    sources: Mapping[str, Entry]
    changed: Mapping[str, str]
    config: Mapping[str, Any]

    def produce(self, entry: Entry) -> Tensor:
        """The tensor of one entry."""
        tensor = load_tensor(self.base, self.sources[entry.name])
        if entry.name in self.changed:
            tensor = self.adapter.apply(self.changed[entry.name], tensor)
        return tensor.to(entry.dtype)


def plan_merge(adapter: Adapter, base: Path, config: MergeConfig) -> MergePlan:
    """Match an adapter's weights with those of a base.

    An adapter that changes one of two tied weights (embedding and output head) unties them: the
    result holds both.

    Raises:
        UsageError: the base lacks a weight that the adapter changes, or has it in another shape.
    """
    sources = list_tensors(base)
    values: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    shapes = adapter.shapes()
    tied = _tied_weights(base, remote=config.trust_remote_code)
    if shapes.keys() & {*tied, *tied.values()}:
        for target, source in tied.items():
            sources.setdefault(target, sources[_stored(source, sources, base)])
        for table in (values, values.get("text_config")):
            if isinstance(table, dict):
                table["tie_word_embeddings"] = False
    changed = {}
    for name, shape in shapes.items():
        stored = _stored(name, sources, base)
        if sources[stored].shape != shape:
            raise UsageError(
                f"The adapter does not fit the base '{base}': '{name}' is "
                f"{list(sources[stored].shape)} there, and the adapter is for {list(shape)}.",
                fix="Set base_hf_path to the model that it was trained on.",
            )
        changed[stored] = name
    entries = tuple(replace(entry, name=name) for name, entry in sources.items())
    if config.torch_dtype != "auto":
        dtype = getattr(torch, config.torch_dtype)
        entries = tuple(
            replace(entry, dtype=dtype) if entry.dtype.is_floating_point else entry
            for entry in entries
        )
        values.pop("torch_dtype", None)
        values["dtype"] = config.torch_dtype
    return MergePlan(adapter, base, entries, sources, changed, values)


def _tied_weights(base: Path, *, remote: bool) -> dict[str, str]:
    """Weights that are another one's, as the architecture declares them: name → the other."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=remote)
    auto: Any = AutoModelForCausalLM  # transformers has no types for from_config
    with torch.device("meta"):
        model = auto.from_config(config, trust_remote_code=remote)
    return dict(model.all_tied_weights_keys)


def _stored(name: str, sources: Mapping[str, Entry], base: Path) -> str:
    """What the base's files call a weight: some were saved without the outermost module's name.

    Raises:
        UsageError: they have no such weight.
    """
    for candidate in (name, name.partition(".")[2]):
        if candidate in sources:
            return candidate
    raise UsageError(
        f"The adapter does not fit the base '{base}', which has no weight '{name}'.",
        fix="Set base_hf_path to the model that it was trained on.",
    )
