"""The rate at which a device multiplies matrices in bfloat16: what training on it cannot exceed.

python benchmarks/gpu_roofline.py [--device cpu]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

Shape = tuple[int, int, int]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("gpu_roofline: error: there is no GPU that torch can use\n")
        return 2
    size = 8192 if options.device == "cuda" else 512
    found = measure(options.device, [(size, size, size)])
    print(f"{found['card']}: {found['rate'] / 1e12:.2f} TFLOP/s")
    return 0


def measure(device: str, shapes: Sequence[Shape]) -> dict[str, Any]:
    """The best rate of some products.

    Args:
        device: `cuda` or `cpu`.
        shapes: of each product: rows, the width that is summed over, and columns.

    Returns:
        The rate in FLOP/s, the card's name and data sheet rate (None where it is not known), and
        the version of torch.
    """
    import torch

    from tunedeck.trainer.reporting.peak import peak_flops

    best = 0.0
    for rows, deep, columns in shapes:
        # Random: zeros are multiplied faster than anything that is trained.
        a = torch.randn(rows, deep, device=device, dtype=torch.bfloat16)
        b = torch.randn(deep, columns, device=device, dtype=torch.bfloat16)
        seconds = statistics.median(_timed(a, b, device))
        best = max(best, 2 * rows * deep * columns / seconds)
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    peak = peak_flops(torch.device(device))
    return {"card": name, "rate": best, "peak": peak, "torch": torch.__version__}


def _timed(a: Any, b: Any, device: str, *, times: int = 30, each: int = 10) -> list[float]:
    """Seconds that a product takes, several times; the first ones are left out."""
    import torch

    found = []
    for number in range(times + 5):
        if device == "cpu":
            begun = time.perf_counter()
            for _ in range(each):
                a @ b
            seconds = time.perf_counter() - begun
        else:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(each):
                a @ b
            end.record()
            end.synchronize()
            seconds = start.elapsed_time(end) / 1000
        if number >= 5:
            found.append(seconds / each)
    return found


if __name__ == "__main__":
    sys.exit(main())
