"""Short stand-ins for what is large: the rows of a step, the weights of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from ..data.rows import TokenRow
from ..parallel.tensors import groups_of, local

_HALF = 32


def rows_digest(rows: Iterable[TokenRow]) -> tuple[int, int]:
    """Stands for the content of rows, in whatever order: two numbers that add up over parts.

    They stay exact in float64, as which ranks exchange counts, for two million rows.
    """
    low = high = 0
    for row in rows:
        content = hashlib.blake2b(row.input_ids.tobytes(), digest_size=8)
        content.update(row.trained.tobytes())
        number = int.from_bytes(content.digest(), "big")
        low += number & ((1 << _HALF) - 1)
        high += number >> _HALF
    return low, high


def digest_text(numbers: Sequence[int]) -> str:
    """The digest of a whole step, from the sums over its parts."""
    return hashlib.blake2b(repr(tuple(numbers)).encode(), digest_size=8).hexdigest()


@torch.no_grad()
def weights_digest(weights: Iterable[tuple[str, Tensor]]) -> str:
    """Stands for the bits of weights; all ranks ask together, and hear the same.

    The bits of each tensor are summed as integers where the tensor is, which does not depend on how
    it is sharded.

    Args:
        weights: names and tensors, in the same order on all ranks.
    """
    digest = hashlib.blake2b(digest_size=8)
    sums = [(name, _sum(tensor)) for name, tensor in weights]
    for (name, _), number in zip(sums, torch.stack([s for _, s in sums]).tolist(), strict=True):
        digest.update(f"{name}={number};".encode())
    return digest.hexdigest()


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _sum(tensor: Tensor) -> Tensor:
    piece = local(tensor)
    bits = piece.detach().contiguous().view(_INTEGERS[piece.element_size()])
    total = bits.sum(dtype=torch.int64)
    for group in groups_of(tensor):
        dist.all_reduce(total, group=group)
    return total
