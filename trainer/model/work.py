"""The arithmetic that training takes, counted from the model and the rows: what MFU is made of.

A product of a weight costs 2 operations a token forward, 2 for the gradient of its input, and 2 for
its own gradient, which a frozen weight does not have: 6 in full training, 4 beside an adapter
(arXiv:2204.02311, appendix B). Attention is counted by what each token sees of its own document.
What is computed again in the backward pass is not counted, nor is padding. That the last block
leaves out what nothing reads is not taken off.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from ..data.batches import Batch

_TRAINED, _FROZEN = 6, 4
# Scores, and values weighted by them: 2 operations each, and twice that in the backward pass.
_ATTENTION = 6


class Work:
    """Counts the floating-point operations of batches, forward and backward.

    Args:
        model: as it is trained.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._token = self._target = 0.0
        self._known = True
        head = model.get_output_embeddings()
        heads = {id(p) for p in head.parameters()} if head is not None else set()
        tables = {id(p) for p in model.get_input_embeddings().parameters()}
        text = model.config.get_text_config()
        seen: set[int] = set()
        for module_name, module in model.named_modules():
            # What an adapter has trained copies of is not computed with.
            if "original_module" in module_name.split("."):
                continue
            for parameter in module._parameters.values():
                if parameter is None or parameter.ndim < 2 or id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                cost = _size(module, parameter) * (_TRAINED if parameter.requires_grad else _FROZEN)
                if id(parameter) in heads:
                    # Logits are computed for what is trained alone.
                    self._target += cost
                elif parameter.ndim > 2:
                    self._token += cost * self._share(text, parameter)
                elif id(parameter) not in tables:
                    self._token += cost
        # Images are no tokens of a row.
        self._known &= text is model.config
        self._layers = _layers(text)

    def _share(self, config: PretrainedConfig, experts: nn.Parameter) -> float:
        """How many of a layer's experts compute a token, of those there are."""
        chosen = getattr(config, "num_experts_per_tok", None)
        self._known &= chosen is not None
        return min((chosen or 0) / experts.shape[0], 1.0)

    def __call__(self, batch: Batch) -> int:
        """Operations for the rows of a batch; 0 where they cannot be counted."""
        if not self._known:
            return 0
        attention = sum(
            count * cost * _pairs(batch.lengths, window)
            for (window, cost), count in self._layers.items()
        )
        targets = batch.targets.numel()
        return round(self._token * sum(batch.lengths) + self._target * targets + attention)


def _size(module: nn.Module, parameter: nn.Parameter) -> int:
    """Entries of a weight, which may be packed several to a byte."""
    if parameter.dtype.is_floating_point:
        return parameter.numel()
    features: Sequence[int | None] = [
        getattr(module, name, None) for name in ("in_features", "out_features")
    ]
    return parameter.numel() if None in features else features[0] * features[1]  # type: ignore[operator]


def _layers(config: PretrainedConfig) -> dict[tuple[int | None, int], int]:
    """How many layers attend within which window at what cost for each token that one sees.

    Layers that are no attention are left out: what they cost beside their weights is little.
    """
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = getattr(config, "qk_head_dim", None) or size
    values = getattr(config, "v_head_dim", None) or size
    window: int | None = getattr(config, "sliding_window", None)
    usual = "full_attention" if window is None else "sliding_attention"
    kinds = getattr(config, "layer_types", None) or [usual] * config.num_hidden_layers
    found: dict[tuple[int | None, int], int] = {}
    for kind, within in (("full_attention", None), ("sliding_attention", window)):
        if count := list(kinds).count(kind):
            found[within, _ATTENTION * heads * (keys + values)] = count
    return found


def _pairs(lengths: Sequence[int], window: int | None) -> int:
    """How many tokens all tokens of some documents see together, themselves among them."""
    total = 0
    for length in lengths:
        within = length if window is None else min(length, window)
        total += within * (within + 1) // 2 + (length - within) * within
    return total
