"""Matrix products on the CPU: by oneDNN where MKL leaves half of the processor unused.

MKL computes with AVX-512 on Intel's processors alone; on AMD's it stays with AVX2, and oneDNN is
twice as fast (float32, 1,024 x 384 x 1,024, one core of Zen 5: 240 against 105 GFLOP/s). Torch has
one public switch that hands float32 products to oneDNN: the permission to round factors to
bfloat16. oneDNN makes use of it on processors with AMX only and computes in float32 on all others,
which is checked here by an exact product before it is relied on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

_ONEDNN = "bf16"
_MKL = "ieee"
# Each shape of a product has its own code, about a megabyte; by default 1,024 of them are kept.
_KEPT = 64


def use_fast_products() -> bool:
    """Let oneDNN compute float32 matrix products where it is faster and just as exact.

    Returns:
        Whether it does from now on.
    """
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    if settings is None or not _suits():
        return False
    # oneDNN reads it at its first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(_KEPT))
    settings.fp32_precision = _ONEDNN
    if not _exact():
        settings.fp32_precision = _MKL
        return False
    return True


def onednn_computes() -> bool:
    """Whether oneDNN computes float32 products now."""
    settings = getattr(torch.backends.mkldnn, "matmul", None)
    return settings is not None and settings.fp32_precision == _ONEDNN


@contextmanager
def small_products() -> Iterator[None]:
    """Have MKL compute within: oneDNN takes longer to set out than a small product takes."""
    if not onednn_computes():
        yield
        return
    settings: Any = getattr(torch.backends.mkldnn, "matmul")  # noqa: B009  # not in torch's stubs
    settings.fp32_precision = _MKL
    try:
        yield
    finally:
        settings.fp32_precision = _ONEDNN


def _suits() -> bool:
    info = Path("/proc/cpuinfo")
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and info.is_file()
        and "AuthenticAMD" in info.read_text()
    )


def _exact() -> bool:
    """Whether factors that bfloat16 does not hold are multiplied without rounding them."""
    for rows, width in ((1, 64), (7, 33), (256, 512), (1024, 1024)):
        fine, ones = torch.full((rows, width), 1 + 2**-12), torch.ones(rows, width)
        expected = torch.full((rows, rows), width * (1 + 2**-12))
        if not (torch.equal(fine @ ones.T, expected) and torch.equal(ones @ fine.T, expected)):
            return False
    return True
