"""Local files that a run reads: found in its config, and known by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from .errors import UsageError

_CHUNK = 1 << 20
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf"}
_WHOLE_LIMIT = 64 << 20
_SAMPLES = 32


def content_digest(path: Path) -> tuple[str, int]:
    """Digest and size in bytes of a file or of a folder's files, the same on every machine.

    Weight files over 64 MiB are known by their size, their first MiB (which holds a safetensors
    file's table of tensors), their last, and 30 between: reading 140 GB to name a model would make
    every preview wait for minutes. All else is read whole.

    Raises:
        UsageError: if something in it cannot be read.
    """
    try:
        if not path.is_dir():
            return _file_digest(path), path.stat().st_size
        total = 0
        whole = hashlib.sha256()
        for name, file in files_below(path):
            total += file.stat().st_size
            whole.update(f"{name}\0{_file_digest(file)}\n".encode())
        return f"sha256:{whole.hexdigest()}", total
    except OSError as error:
        raise UsageError(
            f"{error.filename or path} cannot be read: {error.strerror or error}",
            fix="Check the path and its permissions.",
        ) from error


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """What of a folder travels and counts: its files but hidden ones, by their paths in it."""
    for file in sorted(folder.rglob("*")):
        relative = file.relative_to(folder)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if file.is_file() and not hidden:
            yield relative.as_posix(), file


def _file_digest(path: Path) -> str:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if path.suffix in _WEIGHTS and size > _WHOLE_LIMIT:
            digest.update(str(size).encode())
            for index in range(_SAMPLES):
                file.seek(index * (size - _CHUNK) // (_SAMPLES - 1))
                digest.update(file.read(_CHUNK))
        else:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
