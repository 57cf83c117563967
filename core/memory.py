"""An estimate of the memory that training takes on each GPU, from the model's config alone.

The sizes of weights, gradients and optimizer state are exact for dense decoder models; activations
follow Korthikanti et al. 2022, 'Reducing Activation Recomputation in Large Transformer Models',
without the attention matrix, which fused attention never writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 1 << 30
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_MOMENTS = 2  # of Adam, each in the format of its weight
_WORKSPACE = 1.0 * GIB  # CUDA context, cuBLAS workspaces, fragmentation


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the estimate needs of a Hugging Face `config.json`."""

    hidden: int
    layers: int
    intermediate: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    experts: int
    experts_per_token: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape | None:
        """Read a `config.json`; None where it is not a decoder whose sizes have the usual names."""
        text = config.get("text_config") or config
        try:
            hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
            experts = int(text.get("num_experts") or text.get("num_local_experts") or 0)
            width = (
                text["moe_intermediate_size"]
                if experts and "moe_intermediate_size" in text
                else text["intermediate_size"]
            )
            return cls(
                hidden=hidden,
                layers=int(text["num_hidden_layers"]),
                intermediate=int(width),
                vocab=int(text["vocab_size"]),
                heads=heads,
                kv_heads=int(text.get("num_key_value_heads") or heads),
                head_dim=int(text.get("head_dim") or hidden // heads),
                tied=bool(
                    text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
                ),
                experts=experts,
                experts_per_token=int(text.get("num_experts_per_tok") or 0),
            )
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        router = self.hidden * self.experts
        return attention + router + 3 * self.hidden * self.intermediate * max(self.experts, 1)

    @property
    def parameters(self) -> int:
        """Parameters in all, norms left out (a few parts in ten thousand)."""
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * self.layer_parameters

    def adapter_parameters(self, rank: int) -> int:
        """Parameters of a LoRA adapter of this rank on every linear layer of the decoder."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + q) + 2 * (self.hidden + kv)
        mlp = 3 * (self.hidden + self.intermediate) * max(self.experts, 1)
        return rank * self.layers * (attention + mlp)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on each GPU, by what they are for."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """Bytes in all, with a fixed share for the CUDA context and workspaces."""
        parts = (self.weights, self.gradients, self.optimizer, self.activations, self.logits)
        return sum(parts) + _WORKSPACE

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": self.activations,
            "logits": self.logits,
        }
        text = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
        return f"{_size(self.total)} a process ({text})"


def _size(size: float) -> str:
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
    weights = shape.parameters * weight_bytes + (trained * trained_bytes if peft else 0)

    packed = int(config["packed_sequence"]["packed_sequence_size"] or 0)
    length = packed or int(config["dataset"].get("seq_length") or 2048)
    micro_batch = int(config["step_scheduler"]["local_batch_size"])
    tokens = micro_batch * length / cp
    checkpointing = parallel.get("activation_checkpointing")
    active = shape.intermediate * max(shape.experts_per_token, 1)
    per_layer = tokens * product_bytes * (10 * shape.hidden + 4 * active) / tp
    kept = tokens * product_bytes * shape.hidden * shape.layers
    activations = {True: kept + per_layer, "selective": kept + 0.6 * per_layer * shape.layers}.get(
        checkpointing, per_layer * shape.layers
    )
    return MemoryEstimate(
        weights=weights / shards,
        gradients=trained * trained_bytes / shards,
        optimizer=trained * trained_bytes * _MOMENTS / shards,
        activations=activations,
        logits=tokens * shape.vocab * 4 * 2 / tp,
    )


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
