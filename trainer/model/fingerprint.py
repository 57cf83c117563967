"""A fingerprint of a base model, so that an adapter is never merged into another one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, BinaryIO

_SAMPLE, _SAMPLES = 4096, 16


def base_digest(folder: Path) -> str | None:
    """Digest of the safetensors weights in a folder, whatever files they are spread over.

    Hashing a large model takes minutes, so each tensor gives its name, format, shape and sixteen
    samples of 4 KiB, from its first to its last byte: another model, another revision or a
    re-trained copy differs there. Of tensors up to 64 KiB that is all.

    Returns:
        A hexadecimal digest; None if the folder holds no safetensors files.

    Raises:
        OSError: a file cannot be read.
    """
    tensors: dict[str, bytes] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            tensors.update(_tensors(opened))
    if not tensors:
        return None
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name])
    return digest.hexdigest()


def _tensors(file: BinaryIO) -> dict[str, bytes]:
    """For each tensor of a safetensors file, the digest of its identity and of its samples.

    The format is a little-endian length, a JSON header, then the data that the header's offsets
    count from: https://huggingface.co/docs/safetensors/index#format
    """
    length = int.from_bytes(file.read(8), "little")
    header: dict[str, Any] = json.loads(file.read(length))
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        digest = hashlib.sha256(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
        for number in range(_SAMPLES):
            at = start + max(0, end - start - _SAMPLE) * number // (_SAMPLES - 1)
            file.seek(at)
            digest.update(file.read(min(_SAMPLE, end - at)))
        found[name] = digest.digest()
    return found
