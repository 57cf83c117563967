"""What a GPU computes at the most, by its name: what MFU is a share of."""

from __future__ import annotations

import re

import torch

_TERA = 1e12

# Dense products of bfloat16, summed in float32, from the vendors' data sheets; where these give the
# rate with sparsity, half of it. What is named more precisely stands first.
_PEAKS: tuple[tuple[str, float], ...] = (
    ("GB200", 2500),
    ("B300", 2250),
    ("B200", 2250),
    ("GH200", 989),
    ("H200 NVL", 835),
    ("H200", 989),
    ("H100 NVL", 835),
    ("H[18]00 PCIe", 756),
    ("H[18]00", 989),
    ("H20", 148),
    ("A[18]00", 312),
    ("A40", 150),
    ("A30", 165),
    ("A10G", 70),
    ("A10", 125),
    ("L40S", 362),
    ("L40", 181),
    ("L4", 121),
    ("MI300X", 1307),
)
# A part of a GPU, which has the whole one's name in its own.
_PART = re.compile(r"\bMIG\b|\bGRID\b")


def peak_flops(device: torch.device) -> float | None:
    """Dense bfloat16 FLOP/s of a device; None where it is not known, which is better than wrong."""
    return peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def peak_of(name: str) -> float | None:
    """The same of a GPU by the name that its driver gives, such as `NVIDIA A100-SXM4-80GB`."""
    if _PART.search(name):
        return None
    found = (peak for card, peak in _PEAKS if re.search(rf"\b{card}\b", name))
    peak = next(found, None)
    return None if peak is None else peak * _TERA
