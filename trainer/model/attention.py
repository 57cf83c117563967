"""Attention of documents that lie one after the other in a sequence: each attends to itself alone.

Registered with transformers as `documents`. Document boundaries reach it through a model's keyword
arguments, under the names that transformers' flash attention has for them, and no mask is built.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.masking_utils import sdpa_mask

from .cpu_attention import documents_on_cpu
from .flex import flex_computes, flexible

DOCUMENTS = "documents"
"""What transformers knows this attention by (`attn_implementation`)."""

SHARED = "documents_of_ranks"
"""The same where several ranks share a sequence; see `parallel/sequences.py`."""

_LAYERS = {"full_attention", "sliding_attention"}
# Nemotron's blocks hand nothing on to their attention; Doge's scores are changed by its mask.
_WITHHELD = {"doge", "nemotron"}
_MASKED_BY_POSITION = {"codegen", "gpt_neox_japanese", "gptj", "stablelm"}
_FLASH_HEAD = 256
_FLASH_MULTIPLE = 8
_FLASH_CAPABILITY = (8, 0)  # Ampere
_counted: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def attends_by_document(model_class: type[nn.Module], config: PretrainedConfig) -> bool:
    """Whether a model's attention can be replaced by this one.

    It has to hand the boundaries on to its layers, and these have to be attention throughout: a
    recurrent or convolutional layer carries one document into the next.
    """
    return (
        getattr(model_class, "_supports_attention_backend", False)
        and config.model_type not in _WITHHELD
        and config.get_text_config() is config
        and not carries_state(model_class, config)
    )


def keeps_rows_apart(model_class: type[nn.Module], config: PretrainedConfig) -> bool:
    """Whether rows that share a sequence do not see each other.

    Attention that is not this one keeps them apart by a mask that transformers makes from
    positions, which begin anew with each row. Of the architectures that have an attention of their
    own few use that mask.
    """
    common = getattr(model_class, "_supports_attention_backend", False)
    masked = common or config.model_type in _MASKED_BY_POSITION
    return masked and not carries_state(model_class, config)


def attends_in_line(attn_implementation: str) -> bool:
    """Whether rows that lie in one line cost no more than rows of their own."""
    return attn_implementation in (DOCUMENTS, SHARED, "flash_attention_2", "flash_attention_3")


def carries_state(model_class: type[nn.Module], config: PretrainedConfig) -> bool:
    """Whether a model has layers other than attention that mix the tokens of a sequence."""
    kinds = getattr(config.get_text_config(), "layer_types", None) or ()
    return getattr(model_class, "_is_stateful", False) or not _LAYERS.issuperset(kinds)


def document_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each document.

    Args:
        module: the layer it is computed for.
        query: [rows, heads, length, head_dim].
        key: the same with the number of key/value heads, which divides `heads`.
        value: as `key`.
        attention_mask: [rows, 1, length, seen] bool, for generation; None is causal. It is not
            looked at where there are boundaries (see `unread_mask`).
        cu_seq_lens_q: [documents + 1] int32, where each document begins and the last one ends. None
            takes each row for a document.
        max_length_q: length of the longest document.
        dropout: on the weights.
        scaling: of the scores; None is 1/sqrt(head_dim).
        sliding_window: so many tokens are seen, the token itself among them; None sees them all.
        softcap: scores are bent towards this limit (Gemma 2).
        s_aux: [heads] scores that take part in the softmax and have no value (attention sinks).

    Returns:
        [rows, length, heads, head_dim], and no weights.
    """
    within = Within(dropout, scaling, sliding_window, softcap, s_aux)
    if cu_seq_lens_q is None:
        return within(query, key, value, attention_mask).transpose(1, 2), None
    if within.on_gpu(query, value):
        longest = max_length_q or query.shape[2]
        return variable_length(query, key, value, cu_seq_lens_q, longest, within), None
    if within.by_flex(query):
        options = {"scaling": scaling, "window": sliding_window, "softcap": softcap, "sinks": s_aux}
        return flexible(query, key, value, cu_seq_lens_q, **options), None
    lengths = _lengths(cu_seq_lens_q)
    # Under autocast the rotation leaves queries and keys in float32; latent attention (DeepSeek)
    # has values of another width.
    alike = query.dtype == value.dtype and query.shape[-1] == value.shape[-1]
    if within.plain and alike and not (query.is_cuda or dropout or within.cuts(max(lengths))):
        attended: Tensor = documents_on_cpu(query, key, value, lengths, scaling)
        return attended, None
    parts = zip(*(states.split(lengths, dim=2) for states in (query, key, value)), strict=True)
    # Joined along the tokens of [rows, length, heads, head_dim], which the next layer reads.
    return torch.cat([within(*part).transpose(1, 2) for part in parts], dim=1), None


class Within:
    """Attention within one document, or within rows that are one each.

    Args:
        dropout, scaling, window, softcap, sinks: as `document_attention` has them.
    """

    def __init__(
        self,
        dropout: float,
        scaling: float | None,
        window: int | None,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> None:
        self._dropout, self.scaling, self.window = dropout, scaling, window
        self._softcap, self._sinks = softcap, sinks

    @property
    def plain(self) -> bool:
        """Whether the kernels compute it."""
        return self._softcap is None and self._sinks is None

    def on_gpu(self, query: Tensor, value: Tensor) -> bool:
        """Whether flash attention computes all documents of a sequence: CUDA, half precision."""
        size = query.shape[-1]
        fits = size == value.shape[-1] <= _FLASH_HEAD and size % _FLASH_MULTIPLE == 0
        half = query.is_cuda and value.dtype in (torch.float16, torch.bfloat16)
        return self.plain and half and fits and not self._dropout and _has_flash()

    def by_flex(self, query: Tensor) -> bool:
        """Whether another kernel does, where flash cannot.

        In float32 it would be compiled for what is computed to compare, by small models.
        """
        kernels = self.plain and query.dtype == torch.float32
        return not kernels and flex_computes(query, self._dropout)

    def cuts(self, length: int) -> bool:
        """Whether tokens of a document of this length do not see its beginning."""
        return self.window is not None and length > self.window

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """[rows, heads, length, head_dim] of what the queries, the last of the keys, see."""
        length, seen = query.shape[2], key.shape[2]
        if mask is None and self.cuts(seen):
            assert self.window is not None
            mask = _band(length, seen, self.window, query.device)
        elif mask is None and 1 < length < seen:
            mask = _band(length, seen, seen, query.device)
        if not self.plain:
            return self._explicit(query, key, value, mask)
        shared = query.shape[1] != key.shape[1]
        if shared and query.is_cuda and (mask is not None or query.dtype == torch.float32):
            # No fused kernel of CUDA shares keys among heads here, and what torch would take
            # instead writes all scores out.
            key, value, shared = *_for_each_head(query, key, value), False
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self._dropout,
            is_causal=mask is None and length > 1,
            scale=self.scaling,
            enable_gqa=shared,
        )

    def _explicit(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """The same written out, for what no kernel of torch computes."""
        key, value = _for_each_head(query, key, value)
        scale = query.shape[-1] ** -0.5 if self.scaling is None else self.scaling
        scores = (query @ key.transpose(2, 3)).float() * scale
        if self._softcap is not None:
            scores = self._softcap * torch.tanh(scores / self._softcap)
        if mask is None:
            mask = _band(query.shape[2], key.shape[2], key.shape[2], query.device)
        # Not minus infinity: the queries of padding see nothing at all.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        if self._sinks is not None:
            sinks = self._sinks.float().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            weights = torch.cat([scores, sinks], dim=-1).softmax(-1)[..., :-1]
        else:
            weights = scores.softmax(-1)
        return F.dropout(weights, self._dropout).to(value.dtype) @ value


# A process computes on one device.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_flash() -> bool:
    return torch.cuda.get_device_capability() >= _FLASH_CAPABILITY


def _lengths(bounds: Tensor) -> list[int]:
    """How long each document is; on a GPU, which is waited for, once for all layers of a batch."""
    if not bounds.is_cuda:
        return bounds.diff().tolist()
    if bounds not in _counted:
        _counted[bounds] = bounds.diff().tolist()
    counted: list[int] = _counted[bounds]
    return counted


def _for_each_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    groups = query.shape[1] // key.shape[1]
    return key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)


def _band(length: int, seen: int, window: int, device: torch.device) -> Tensor:
    """[length, seen] bool: each token sees itself and the `window - 1` tokens before it."""
    everything = torch.ones(length, seen, dtype=torch.bool, device=device)
    return everything.tril(seen - length).triu(seen - length - window + 1)


def variable_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    longest: int,
    within: Within,
    seen_bounds: Tensor | None = None,
    longest_seen: int = 0,
) -> Tensor:
    """All documents in one flash attention kernel; CUDA, half precision.

    Args:
        query: [1, heads, tokens, head_dim].
        key: the same with the number of key/value heads, and perhaps more tokens.
        value: as `key`.
        bounds: [documents + 1] int32, where the queries of each begin, and the last ones end.
        longest: the most queries of a document.
        within: what applies in each.
        seen_bounds: the same of the keys, where more are seen than ask; queries see as its last.
        longest_seen: the most keys of a document.
    """
    from torch.nn.attention.varlen import varlen_attn

    # Under autocast the rotation leaves queries and keys in float32.
    q, k, v = (x.transpose(1, 2).flatten(0, 1).to(value.dtype) for x in (query, key, value))
    attended = varlen_attn(
        q,
        k,
        v,
        bounds,
        bounds if seen_bounds is None else seen_bounds,
        longest,
        longest_seen or longest,
        scale=within.scaling,
        window_size=(-1 if within.window is None else within.window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0)


def unread_mask(attn_implementation: str, device: torch.device) -> dict[str, Tensor]:
    """The mask that a model is given beside boundaries, as a keyword argument: one without places.

    Transformers hands a mask of four dimensions on to the layers as it is. Without one it looks at
    the positions for where documents begin, and so waits for a GPU in each forward pass.
    """
    if attn_implementation not in (DOCUMENTS, SHARED):
        return {}
    return {"attention_mask": torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)}


def causal_mask(
    *, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **rest: Any
) -> Tensor | None:
    """No mask where a row is plainly causal or the boundaries say it; else that of SDPA."""
    if attention_mask is None and q_length == kv_length:
        return None
    mask: Tensor | None = sdpa_mask(
        q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **rest
    )
    return mask


AttentionInterface.register(DOCUMENTS, document_attention)
AttentionMaskInterface.register(DOCUMENTS, causal_mask)
