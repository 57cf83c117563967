"""How far a merged model is from its adapter on top of the base, measured in logits."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ...core.hardware import memory_bytes
from ..checkpoints.safetensors_files import list_tensors
from .adapter import attach_adapter
from .base_model import load_base

_ROWS, _LENGTH, _SEED = 4, 32, 0


class Difference(NamedTuple):
    """What merging changed.

    Attributes:
        largest: the largest absolute difference of a logit.
        same_next_token: the share of positions at which both find the same token most likely.
    """

    largest: float
    same_next_token: float


@torch.inference_mode()
def merge_difference(
    base: Path, adapter: Path, merged: Path, *, remote: bool = False
) -> Difference | None:
    """Compare the logits for random tokens, computed on the CPU in the widest format that fits.

    In float64 what is left is the rounding of the merged weights to the format they are stored in;
    float32 adds its own.

    Args:
        base: folder of the base.
        adapter: folder of the adapter.
        merged: folder of the merged model.
        remote: whether Python code that comes with the model may be run.

    Returns:
        The difference; None if even in float32 a model would fill more than half of the memory.
    """
    count = sum(entry.size // entry.dtype.itemsize for entry in list_tensors(merged).values())
    if 2 * count * torch.float64.itemsize <= memory_bytes():
        # The code of some architectures is for float32 and smaller formats.
        with contextlib.suppress(RuntimeError):
            return _difference(base, adapter, merged, torch.float64, remote=remote)
    if 2 * count * torch.float32.itemsize <= memory_bytes():
        return _difference(base, adapter, merged, torch.float32, remote=remote)
    return None


def _difference(
    base: Path, adapter: Path, merged: Path, dtype: torch.dtype, *, remote: bool
) -> Difference:
    model = load_base(base, dtype, remote=remote)
    generator = torch.Generator().manual_seed(_SEED)
    size = model.config.get_text_config().vocab_size
    ids = torch.randint(size, (_ROWS, _LENGTH), generator=generator)
    expected = _logits(attach_adapter(model, adapter).to(dtype), ids)
    del model
    found = _logits(load_base(merged, dtype, remote=remote), ids)
    same = (found.argmax(-1) == expected.argmax(-1)).float().mean()
    return Difference((found - expected).abs().max().item(), same.item())


def _logits(model: torch.nn.Module, ids: Tensor) -> Tensor:
    # A cache is of no use for one forward pass, and not every architecture can begin one.
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits
