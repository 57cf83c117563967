"""What this machine has: GPUs and memory, without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its product name and its memory in bytes."""

    name: str
    memory: int


@cache
def local_gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs of this machine that `CUDA_VISIBLE_DEVICES` leaves visible."""
    tool = shutil.which("nvidia-smi")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if tool is None or visible == "":
        return ()
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [line.rsplit(",", 1) for line in done.stdout.splitlines() if "," in line]
    gpus = tuple(Gpu(name.strip(), int(memory) * MIB) for name, memory in rows)
    return gpus if visible is None else gpus[: len(visible.split(","))]


def memory_bytes() -> int:
    """Physical memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
