"""The names of a model's layers, from its weights' headers or from its kind, without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_LONGEST_HEADER = 100 << 20
_EMBEDDINGS = ("embed", "wte", "wpe", "lm_head")
_HEAD = "lm_head"

_SPLIT = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
_JOINED = ("qkv_proj", "o_proj"), ("gate_up_proj", "down_proj")
_KINDS = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3", "granite", "olmo2"), _SPLIT),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), _SPLIT),
    "phi3": _JOINED,
}
"""The linear layers of a block's attention and of its MLP, by `model_type`."""
_OTHERS = (
    *("model.embed_tokens", "model.norm", "input_layernorm", "post_attention_layernorm"),
    *("pre_feedforward_layernorm", "post_feedforward_layernorm", "q_norm", "k_norm"),
)


class LayerNames(NamedTuple):
    """What a model's modules are called.

    Attributes:
        linear: full names of its linear layers.
        modules: names of all its modules that hold weights, each by its last part.
        certain: whether a name that is not among them is not in the model: transformers renames
            what it loads of some architectures.
    """

    linear: tuple[str, ...]
    modules: frozenset[str]
    certain: bool


def layer_names(config: Mapping[str, Any], folder: Path | None) -> LayerNames | None:
    """The names of a model's layers; None where they cannot be told.

    Args:
        config: its `config.json`.
        folder: where its weights are, if they are at hand.
    """
    shapes = dict(_shapes(folder)) if folder is not None else {}
    if shapes:
        return _from_weights(config, shapes)
    kind, layers = _KINDS.get(str(config.get("model_type"))), config.get("num_hidden_layers")
    if kind is None or not isinstance(layers, int):
        return None
    attention, mlp = kind
    block = [*(f"self_attn.{name}" for name in attention), *(f"mlp.{name}" for name in mlp)]
    linear = (*(f"model.layers.{n}.{name}" for n in range(layers) for name in block), _HEAD)
    return LayerNames(linear, _parts((*linear, *_OTHERS)), certain=True)


def _from_weights(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> LayerNames | None:
    linear = {
        module
        for name, shape in shapes.items()
        if len(shape) == 2 and (module := name.removesuffix(".weight")) != name
        if not any(mark in module.rpartition(".")[2] for mark in _EMBEDDINGS)
        if ".experts." not in module and not module.endswith(".gate")  # joined when they are loaded
    }
    if not linear:
        return None
    plain = str(config.get("model_type")) in _KINDS
    named = all(name.startswith(("model.", f"{_HEAD}.")) for name in shapes)
    # The head may be tied, and then lies in no file.
    return LayerNames(
        (*sorted(linear), _HEAD), _parts((*shapes, _HEAD, *_OTHERS)), certain=plain and named
    )


def _parts(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(part for name in names for part in name.split("."))


def _shapes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a folder's safetensors files, read from their headers.

    The format: https://github.com/huggingface/safetensors#format.
    """
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with file.open("rb") as opened:
                (size,) = struct.unpack("<Q", opened.read(8))
                header = json.loads(opened.read(size)) if size <= _LONGEST_HEADER else {}
            header.pop("__metadata__", None)
            yield from ((name, tuple(tensor["shape"])) for name, tensor in header.items())
        except (OSError, ValueError, struct.error, AttributeError, KeyError, TypeError):
            # What is wrong with the file, loading it will say.
            continue
