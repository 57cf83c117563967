"""How many parameters a decoder has, from its `config.json` alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the estimate of memory needs of a Hugging Face `config.json`.

    Attributes:
        hidden, layers, vocab, heads, kv_heads, head_dim: as there.
        intermediate: width of a dense layer's MLP.
        tied: whether the output head is the embedding.
        experts, experts_per_token: of a layer with experts, and those that a token goes to; 0
            without any.
        expert_width: width of one of them.
        shared_width: width of the experts of a layer that every token goes to, together.
        dense_layers: layers without experts, where others have them.
    """

    hidden: int
    layers: int
    intermediate: int
    vocab: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_width: int = 0
    dense_layers: int = 0

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape | None:
        """Read a `config.json`; None where it is not a decoder whose sizes have the usual names."""
        text = config.get("text_config") or config
        try:
            hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
            layers = int(text["num_hidden_layers"])
            experts = next((int(text[key]) for key in _EXPERTS if text.get(key)), 0)
            width = int(text.get("moe_intermediate_size") or text["intermediate_size"])
            shared = int(text.get("shared_expert_intermediate_size") or 0)
            shared = shared or int(text.get("n_shared_experts") or 0) * width
            return cls(
                hidden=hidden,
                layers=layers,
                intermediate=int(text["intermediate_size"]),
                vocab=int(text["vocab_size"]),
                heads=heads,
                kv_heads=int(text.get("num_key_value_heads") or heads),
                head_dim=int(text.get("head_dim") or hidden // heads),
                tied=bool(
                    text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
                ),
                experts=experts,
                experts_per_token=int(text.get("num_experts_per_tok") or 0),
                expert_width=width if experts else 0,
                shared_width=shared if experts else 0,
                dense_layers=_dense_layers(text, layers) if experts else 0,
            )
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def attention_parameters(self) -> int:
        """Parameters of one layer's attention."""
        return self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)

    @property
    def expert_parameters(self) -> int:
        """Parameters of one layer's experts, of those that tokens are dealt out to."""
        return 3 * self.hidden * self.expert_width * self.experts

    @property
    def dense_parameters(self) -> int:
        """Parameters of all layers that are linear layers of their own, experts left out."""
        shared = 3 * self.hidden * self.shared_width * (self.layers - self.dense_layers)
        dense = self.layers if not self.experts else self.dense_layers
        return (
            self.layers * self.attention_parameters
            + shared
            + 3 * self.hidden * self.intermediate * dense
        )

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer, the largest there is."""
        dense = 3 * self.hidden * self.intermediate
        if not self.experts:
            return self.attention_parameters + dense
        mixed = self.expert_parameters + self.hidden * (self.experts + 3 * self.shared_width)
        return self.attention_parameters + max(mixed, dense if self.dense_layers else 0)

    @property
    def parameters(self) -> int:
        """Parameters in all, norms left out (a few parts in ten thousand)."""
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        mixed = self.layers - self.dense_layers if self.experts else 0
        routers = self.hidden * self.experts
        return embeddings + self.dense_parameters + mixed * (self.expert_parameters + routers)

    def adapter_parameters(self, rank: int) -> int:
        """The most parameters that a LoRA adapter of this rank on all linear layers has.

        The experts of a layer are one tensor, and get none. Of some architectures PEFT leaves dense
        layers and shared experts out as well, because they are called as experts once were.
        """
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + q) + 2 * (self.hidden + kv)
        dense = self.dense_layers if self.experts else self.layers
        mlps = 3 * (self.hidden + self.intermediate) * dense
        if self.shared_width:
            shared = 3 * (self.hidden + self.shared_width) + self.hidden + 1
            mlps += shared * (self.layers - dense)
        return rank * (self.layers * attention + mlps)


def _dense_layers(text: Mapping[str, Any], layers: int) -> int:
    """How many layers of a model with experts have none."""
    if text.get("first_k_dense_replace"):
        return min(int(text["first_k_dense_replace"]), layers)
    kinds = text.get("mlp_layer_types")
    if isinstance(kinds, list):
        return sum(kind == "dense" for kind in kinds)
    step, plain = int(text.get("decoder_sparse_step") or 1), set(text.get("mlp_only_layers") or ())
    return sum(layer in plain or (layer + 1) % step != 0 for layer in range(layers))
