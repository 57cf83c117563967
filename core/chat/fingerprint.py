"""What stands for the rows of a data set without all of them being read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from .sources import Source

_SAMPLE = 1 << 16


def rows_fingerprint(sources: Sequence[Source], revision: str | None = None) -> str:
    """Digest of a data set's sources: of each its share, and what stands for its content.

    A file gives its size and the first and last 64 KiB, so that one of any size is looked at in no
    time; neither its name nor its folder, which differ where data travels with a run.

    Args:
        sources: from `find_sources`.
        revision: of a hub id.

    Returns:
        A hexadecimal digest.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for source in sources:
        digest.update(json.dumps([source.weight, source.hub_id, revision]).encode())
        for file in source.files:
            digest.update(_sampled(file))
    return digest.hexdigest()


def _sampled(file: Path) -> bytes:
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as opened:
        digest.update(opened.read(_SAMPLE))
        opened.seek(max(0, size - _SAMPLE))
        digest.update(opened.read(_SAMPLE))
    return digest.digest()
