"""Context parallelism: each rank computes a part of every sequence, and sees the whole of it.

Keys and values of all ranks are gathered in each layer, as in Llama 3's training (arXiv:2407.21783,
3.3.2), and each document is attended to by itself: so it works on packed documents, on any device.
A sequence is cut into twice as many chunks as there are ranks, and each rank takes one from the
front and one from the back: late tokens see more than early ones, and so the work is even.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig

from ...core.errors import UsageError
from ..data.batches import Batch, sent
from ..model.attention import (
    SHARED,
    Within,
    attends_by_document,
    causal_mask,
    document_attention,
    variable_length,
)
from .collectives import Group, join
from .context import DistributedContext


class Segment(NamedTuple):
    """The part of a document that lies in a chunk.

    Attributes:
        begin, end: its places in this rank's part of the sequence.
        first, last: the places in the whole sequence of what its tokens see: from where the
            document begins to where the segment ends.
    """

    begin: int
    end: int
    first: int
    last: int


def check_context_parallel(model_class: type[nn.Module], config: PretrainedConfig) -> None:
    """Find out from the architecture whether its sequences can be shared by ranks.

    Raises:
        UsageError: a layer is not attention, or its attention cannot be replaced.
    """
    if not attends_by_document(model_class, config):
        raise UsageError(
            f"distributed.cp_size: the layers of '{config.model_type}' cannot share a sequence.",
            fix="Set distributed.cp_size=1, and shard with fsdp2 or tp_size.",
        )


class SharedSequences:
    """Cuts batches for a rank, and attends over those of all ranks.

    Args:
        group: the `cp` ranks.
    """

    current: SharedSequences | None = None
    """What the attention that transformers knows uses."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._segments: list[Segment] | None = None
        self._seen: _Seen | None = None

    def cut(self, batch: Batch) -> Batch:
        """This rank's part of a batch whose rows lie in one line.

        What is made up to fill the chunks is a document of its own. Places are counted on the host,
        where the batch should still be: a GPU would be waited for.
        """
        assert batch.cu_seqlens is not None and batch.position_ids is not None
        chunks, rank = 2 * self._group.size(), self._group.rank()
        tokens = batch.input_ids.shape[1]
        filled = -tokens % chunks
        length = (tokens + filled) // chunks
        bounds = [*batch.cu_seqlens.tolist(), *([tokens + filled] if filled else [])]
        mine = (rank, chunks - 1 - rank)
        self._segments, self._seen = segments(bounds, mine, length), None

        def part(x: Tensor) -> Tensor:
            pieces = F.pad(x, (0, filled)).split(length, dim=1)
            return torch.cat([pieces[chunk] for chunk in mine], dim=1)

        # The place of each token here, or -1 where it is another rank's.
        places = torch.full((tokens + filled,), -1, device=batch.positions.device)
        for number, chunk in enumerate(mine):
            own = torch.arange(number * length, (number + 1) * length, device=places.device)
            places[chunk * length : (chunk + 1) * length] = own
        positions = places[batch.positions]
        here = positions >= 0
        return batch._replace(
            input_ids=part(batch.input_ids),
            position_ids=part(batch.position_ids),
            positions=positions[here],
            targets=batch.targets[here],
            sources=None if batch.sources is None else batch.sources[here],
        )

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        **rest: Any,
    ) -> tuple[Tensor, None]:
        """Causal attention of this rank's tokens within their documents.

        Arguments and result are those of `document_attention`, of this rank's part.
        """
        within = Within(dropout, scaling, sliding_window, softcap, s_aux)
        assert self._segments is not None
        keys, values = self._gathered(key), self._gathered(value)
        if within.on_gpu(query, value):
            return self._flash(query, keys, values, within), None
        attended = [
            within(
                query[:, :, s.begin : s.end],
                keys[:, :, s.first : s.last],
                values[:, :, s.first : s.last],
            ).transpose(1, 2)
            for s in self._segments
        ]
        return torch.cat(attended, dim=1), None

    def _gathered(self, states: Tensor) -> Tensor:
        """[1, heads, length, head_dim] of all ranks in the order of the sequence."""
        ranks = self._group.size()
        chunks = join(states, 2, self._group, summed=True).chunk(2 * ranks, dim=2)
        return torch.cat([*chunks[::2], *reversed(chunks[1::2])], dim=2)

    def _flash(self, query: Tensor, keys: Tensor, values: Tensor, within: Within) -> Tensor:
        """All segments in one kernel; what several see is there once for each."""
        if self._seen is None:
            assert self._segments is not None
            self._seen = _Seen.of(self._segments, query.device)
        seen = self._seen
        return variable_length(
            query,
            keys.index_select(2, seen.places),
            values.index_select(2, seen.places),
            seen.bounds,
            seen.longest,
            within,
            seen.seen_bounds,
            seen.longest_seen,
        )


class _Seen(NamedTuple):
    """What the segments of a batch see, on the device: the same in all layers.

    Attributes:
        places: in the whole sequence, of one segment after the other.
        bounds, seen_bounds: [segments + 1] int32, where the queries of each begin, and what they
            see.
        longest, longest_seen: the most queries of a segment, and the most that one sees.
    """

    places: Tensor
    bounds: Tensor
    seen_bounds: Tensor
    longest: int
    longest_seen: int

    @classmethod
    def of(cls, found: list[Segment], device: torch.device) -> _Seen:
        asked = [s.end - s.begin for s in found]
        seen = [s.last - s.first for s in found]
        places = torch.cat([torch.arange(s.first, s.last) for s in found])
        begins = (torch.tensor([0, *x]).cumsum(0).int() for x in (asked, seen))
        places, bounds, seen_bounds = (sent(x, device) for x in (places, *begins))
        return cls(places, bounds, seen_bounds, max(asked), max(seen))


def segments(bounds: list[int], chunks: tuple[int, ...], length: int) -> list[Segment]:
    """The parts of documents that lie in some chunks of a sequence.

    Args:
        bounds: where each document begins, and where the last one ends.
        chunks: which of the equal chunks of the sequence, in the order they lie here.
        length: of a chunk.
    """
    found = []
    for number, chunk in enumerate(chunks):
        start, stop = chunk * length, (chunk + 1) * length
        here = number * length - start
        for first, end in pairwise(bounds):
            begin, last = max(first, start), min(end, stop)
            if begin < last:
                found.append(Segment(begin + here, last + here, first, last))
    return found


def share_sequences(context: DistributedContext) -> SharedSequences | None:
    """Let models with the attention `SHARED` share their sequences over the `cp` ranks."""
    group = None if context.context_mesh is None else context.context_mesh.get_group()
    SharedSequences.current = None if group is None else SharedSequences(group)
    return SharedSequences.current


def _attention(*arguments: Any, **options: Any) -> tuple[Tensor, None]:
    shared = SharedSequences.current
    # Generation has no boundaries; its sequences are whole on every rank.
    if shared is None or options.get("cu_seq_lens_q") is None:
        return document_attention(*arguments, **options)
    return shared(*arguments, **options)


AttentionInterface.register(SHARED, _attention)
AttentionMaskInterface.register(SHARED, causal_mask)
