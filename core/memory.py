"""An estimate of the memory that training takes on each GPU, from the model's config alone.

The sizes of weights, gradients and optimizer state are exact for decoder models; activations follow
Korthikanti et al. 2022, 'Reducing Activation Recomputation in Large Transformer Models', without
the attention matrix, which fused attention never writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .model_shape import ModelShape

__all__ = ["GIB", "MemoryEstimate", "ModelShape", "estimate", "what_would_fit"]

GIB = 1 << 30
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_MOMENTS = 2  # of Adam, each in the format of its weight
_SMALL_MOMENTS = 2  # bytes of both together in eight bits
_QUANTIZED = {"nf4": 0.5 + 1 / 64, "int8": 1.0}  # bytes of a weight with its share of the scales
_WORKSPACE = 1.0 * GIB  # the libraries': CUDA context, cuBLAS workspaces, fragmentation


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on each GPU, by what they are for.

    Attributes:
        weights, gradients, optimizer: this process's pieces.
        gathered: the weights that are whole while they are computed with, where they are sharded.
        activations, logits: of one micro-batch.
        offloaded: what lies in main memory instead (`cpu_offload`), in no sum.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    gathered: float = 0.0
    offloaded: float = 0.0

    @property
    def total(self) -> float:
        """Bytes in all, with a fixed share for the CUDA context and workspaces."""
        return sum(self._parts().values()) + _WORKSPACE

    def __str__(self) -> str:
        parts = {**self._parts(), "libraries": _WORKSPACE}
        text = ", ".join(f"{name} {size_words(size)}" for name, size in parts.items() if size)
        beside = f", and {size_words(self.offloaded)} in main memory" if self.offloaded else ""
        return f"{size_words(self.total)} a process ({text}){beside}"

    def _parts(self) -> dict[str, float]:
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "gathered": self.gathered,
            "activations": self.activations,
            "logits": self.logits,
        }


def size_words(size: float) -> str:
    """Bytes in the unit that tells them: `1.4 GiB`, `32 MiB`."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / (1 << 20):.0f} MiB"


def estimate(config: Mapping[str, Any], shape: ModelShape, world_size: int) -> MemoryEstimate:
    """Estimate one GPU's memory for a resolved training config on `world_size` ranks."""
    model, parallel = config["model"], config["distributed"]
    peft = config.get("peft")
    if model["torch_dtype"] == "auto":
        # On a GPU: what is trained is float32, and all is multiplied in bfloat16.
        weight_bytes, product_bytes = (2 if peft else 4), 2
    else:
        weight_bytes = product_bytes = _BYTES[model["torch_dtype"]]
    tp = int(parallel.get("tp_size") or 1)
    cp = int(parallel.get("cp_size") or 1)
    sharded = parallel.get("strategy") == "fsdp2"
    replicas = int(parallel.get("dp_replicate_size") or 1)
    shards = tp * max(world_size // (tp * cp * replicas), 1) * cp if sharded else tp

    trained = shape.adapter_parameters(int(peft["dim"])) if peft else shape.parameters
    trained_bytes = max(weight_bytes, 4) if peft else weight_bytes
    weights: float = shape.parameters * weight_bytes + (trained * trained_bytes if peft else 0)
    if quantized := (peft or {}).get("quantization"):
        weights -= shape.dense_parameters * (weight_bytes - _QUANTIZED[quantized])
    small = (config.get("optimizer") or {}).get("name") == "adamw8bit"
    state = (
        weights,
        trained * trained_bytes,
        trained * (_SMALL_MOMENTS if small else trained_bytes * _MOMENTS),
    )
    mine = [size / shards for size in state]
    if quantized:
        # Each process has all of the base; its adapter alone is sharded.
        mine[0] = weights - trained * trained_bytes * (1 - 1 / shards)
    gathered = 0.0
    if shards > tp and not quantized:
        gathered = _gathered(shape, int(parallel.get("ep_size") or 1)) * product_bytes / tp
    offloads = bool(parallel.get("cpu_offload")) and shards > tp

    packed = int(config["packed_sequence"]["packed_sequence_size"] or 0)
    length = packed or int(config["dataset"].get("seq_length") or 2048)
    micro_batch = int(config["step_scheduler"]["local_batch_size"])
    tokens = micro_batch * length / cp
    checkpointing = parallel.get("activation_checkpointing")
    # What a token goes through of a layer with experts, or of a dense one.
    chosen = shape.expert_width * shape.experts_per_token + shape.shared_width
    active = chosen if shape.experts else shape.intermediate
    per_layer = tokens * product_bytes * (10 * shape.hidden + 4 * active) / tp
    kept = tokens * product_bytes * shape.hidden * shape.layers
    activations = {True: kept + per_layer, "selective": kept + 0.6 * per_layer * shape.layers}.get(
        checkpointing, per_layer * shape.layers
    )
    on_gpu = [0.0, 0.0, 0.0] if offloads else mine
    return MemoryEstimate(
        weights=on_gpu[0],
        gradients=on_gpu[1],
        optimizer=on_gpu[2],
        activations=activations,
        logits=tokens * shape.vocab * 4 * 2 / tp,
        gathered=gathered,
        offloaded=sum(mine) if offloads else 0.0,
    )


def _gathered(shape: ModelShape, ep: int) -> float:
    """Parameters that are whole at a time: a layer, the one fetched ahead, and the output head."""
    elsewhere = shape.expert_parameters * (1 - 1 / ep)
    return 2 * (shape.layer_parameters - elsewhere) + shape.vocab * shape.hidden


def what_would_fit(config: Mapping[str, Any], shape: ModelShape, world: int, limit: float) -> str:
    """One sentence on the first single change that brings the estimate under `limit` bytes."""
    tries: list[tuple[str, dict[str, Any]]] = [
        ("step_scheduler.local_batch_size=1", {"step_scheduler": {"local_batch_size": 1}}),
        (
            "distributed.activation_checkpointing=true",
            {"distributed": {"activation_checkpointing": True}},
        ),
        ("peft=lora", {"peft": config.get("peft") or {"dim": 8}}),
    ]
    sharded = config["distributed"].get("strategy") == "fsdp2"
    if world > 1 and sharded and not (config.get("peft") or {}).get("quantization"):
        offload = ("distributed.cpu_offload=true", {"distributed": {"cpu_offload": True}})
        tries.insert(2, offload)
    changed: dict[str, Any] = dict(config)
    words: list[str] = []
    for text, change in tries:
        for table, values in change.items():
            changed[table] = {**(changed.get(table) or {}), **values}
        words.append(text)
        if estimate(changed, shape, world).total <= limit:
            return f"It would fit with {' '.join(words)}."
    for more in (2, 4, 8, 16, 32):
        if estimate(changed, shape, world * more).total <= limit:
            return f"It would fit with {' '.join(words)} on {world * more} GPUs."
    return "No setting known here makes it fit: choose a smaller model or larger GPUs."
