"""FlexAttention over documents: on a GPU, for scores that flash attention has no kernel for.

These are capped scores (Gemma 2), attention sinks, and heads of a size that flash does not take.
One compiled kernel computes all documents of a sequence and visits no block that holds nothing to
see (arXiv:2412.05496).
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention
from torch.utils.weak import WeakTensorKeyDictionary

_BLOCK = 128
_SMALLEST_HEAD = 16
_masks: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def flex_computes(query: Tensor, dropout: float) -> bool:
    """Whether the kernel computes it: on a GPU that Triton writes code for, without dropout."""
    return query.is_cuda and not dropout and query.shape[-1] >= _SMALLEST_HEAD and _has_triton()


@functools.cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


# A block of a model that is compiled is cut here: the kernel is compiled by itself, once for all.
@torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator]
def flexible(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    *,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Causal attention within each document.

    Args:
        query: [1, heads, tokens, head_dim].
        key: the same with the number of key/value heads.
        value: as `key`.
        bounds: [documents + 1] int32, where each begins and the last one ends.
        scaling: of the scores; None is 1/sqrt(head_dim).
        window: so many tokens are seen, the token itself among them; None sees them all.
        softcap: scores are bent towards this limit.
        sinks: [heads] scores that take part in the softmax and have no value.

    Returns:
        [1, tokens, heads, head_dim].
    """

    def capped(score: Tensor, *_: Any) -> Tensor:
        assert softcap is not None
        return softcap * torch.tanh(score / softcap)

    found: Any = _kernel()(
        # Under autocast the rotation leaves queries and keys in float32.
        query.to(value.dtype),
        key.to(value.dtype),
        value,
        score_mod=None if softcap is None else capped,
        block_mask=_mask_of(bounds, query.shape[2], window),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
        return_aux=None if sinks is None else AuxRequest(lse=True),
    )
    attended: Tensor
    if sinks is None:
        attended = found
        return attended.transpose(1, 2)
    attended, beside = found
    # The softmax with the sink, from the one without it: their sums differ by one term.
    share = torch.sigmoid(beside.lse - sinks.float().view(1, -1, 1))
    return (attended * share.unsqueeze(-1)).to(value.dtype).transpose(1, 2)


@functools.cache
def _kernel() -> Any:
    # Uncompiled it would write out the scores of all tokens with all others.
    return torch.compile(flex_attention)


def _mask_of(bounds: Tensor, tokens: int, window: int | None) -> BlockMask:
    """The mask of a batch, made once for all layers and for what is computed again."""
    made: dict[int | None, BlockMask] = _masks.setdefault(bounds, {})
    if window not in made:
        made[window] = document_mask(bounds, tokens, window)
    return made[window]


def document_mask(bounds: Tensor, tokens: int, window: int | None) -> BlockMask:
    """Which blocks of a sequence are seen from which: wholly, in part, or not at all.

    It is found from where the documents begin, without a mask of all tokens, and without waiting
    for the GPU.

    Args:
        bounds: [documents + 1] int32, where each begins and the last one ends.
        tokens: of the sequence.
        window: so many tokens are seen, the token itself among them; None sees them all.
    """
    places = torch.arange(tokens, device=bounds.device)
    owner = torch.searchsorted(bounds, places, right=True, out_int32=True)

    def seen(_batch: Tensor, _head: Tensor, asks: Tensor, at: Tensor) -> Tensor:
        found = (asks >= at) & (owner[asks] == owner[at])
        return found if window is None else found & (asks - at < window)

    begin = torch.arange(0, tokens, _BLOCK, device=bounds.device)
    last = (begin + _BLOCK).clamp(max=tokens) - 1
    first_owner, last_owner = owner[begin], owner[last]
    # Documents follow each other: what lies between two tokens of one is of it as well.
    any_seen = (begin[:, None] >= begin) & (last_owner >= first_owner[:, None])
    all_seen = (begin[:, None] > begin) & (first_owner == last_owner[:, None])
    if window is not None:
        any_seen &= begin[:, None] - last < window
        all_seen &= last[:, None] - begin < window
    # Of a block that is not full, the places beyond the end are masked one by one.
    all_seen &= (begin + _BLOCK <= tokens)[:, None]
    return BlockMask.from_kv_blocks(
        *_in_order(any_seen & ~all_seen),
        *_in_order(all_seen),
        BLOCK_SIZE=_BLOCK,
        mask_mod=seen,
        seq_lengths=(tokens, tokens),
    )


def _in_order(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, columns] bool as FlexAttention has it: how many of each row, and these before others.

    Returns:
        [1, 1, rows] and [1, 1, rows, columns], both int32.
    """
    counts = blocks.sum(1, dtype=torch.int32)
    columns = blocks.int().argsort(dim=1, descending=True, stable=True).int()
    return counts[None, None], columns.contiguous()[None, None]
