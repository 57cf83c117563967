"""Local files that a run reads: found in its config, and known by their content."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UsageError

_CHUNK = 1 << 20
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf"}
_WHOLE_LIMIT = 64 << 20
_SAMPLES = 32


def content_digest(path: Path) -> tuple[str, int]:
    """Digest and size in bytes of a file, a folder's or a glob's files, the same on every machine.

    Weight files over 64 MiB are known by their size, their first MiB (which holds a safetensors
    file's table of tensors), their last, and 30 between: reading 140 GB to name a model would make
    every preview wait for minutes. All else is read whole.

    Raises:
        UsageError: if something in it cannot be read.
    """
    try:
        globbed = as_glob(path)
        if not globbed and not path.is_dir():
            return _file_digest(path), path.stat().st_size
        total = 0
        # What a folder is read for, its files decide; a glob takes the very ones that it names.
        whole = hashlib.sha256(f"{globbed[1]}\n".encode() if globbed else b"")
        for name, file in files_of(path):
            total += file.stat().st_size
            whole.update(f"{name}\0{_file_digest(file)}\n".encode())
        return f"sha256:{whole.hexdigest()}", total
    except OSError as error:
        raise UsageError(
            f"{error.filename or path} cannot be read: {error.strerror or error}",
            fix="Check the path and its permissions.",
        ) from error


def files_of(source: Path) -> Iterator[tuple[str, Path]]:
    """What of an input travels and counts, with its path in it; a file is all of itself, as "".

    Of a folder those are its files but hidden ones, of a glob those that it matches.

    Raises:
        OSError: if there is nothing.
    """
    if globbed := as_glob(source):
        folder, pattern = globbed
        found = [file for file in sorted(folder.glob(pattern)) if file.is_file()]
        if not found:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        yield from ((file.relative_to(folder).as_posix(), file) for file in found)
    elif source.is_dir():
        for file in sorted(source.rglob("*")):
            relative = file.relative_to(source)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
            if file.is_file() and not hidden:
                yield relative.as_posix(), file
    else:
        yield "", source


def as_glob(source: Path) -> tuple[Path, str] | None:
    """The folder that a glob starts from and the pattern below it; None for any other path.

    What is there under the very name is no glob.
    """
    plain = [_literal(part) for part in source.parts]
    if None not in plain or source.exists():
        return None
    fixed = plain.index(None)
    return Path(*(part for part in plain[:fixed] if part)), "/".join(source.parts[fixed:])


def is_here(source: Path) -> bool:
    """Whether a path names something on this machine, or a glob matches a file."""
    if globbed := as_glob(source):
        folder, pattern = globbed
        return any(file.is_file() for file in folder.glob(pattern))
    return source.exists()


@contextmanager
def as_path(source: Path) -> Iterator[Path]:
    """A file or folder that is copied in place of an input: of a glob, links to what it matches."""
    if as_glob(source) is None:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="tunedeck-") as folder:
        for name, file in files_of(source):
            link = Path(folder, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
        yield Path(folder)


def _literal(part: str) -> str | None:
    """The name that a part of a path stands for, `glob.escape` undone; None for a pattern."""
    plain = re.sub(r"\[([*?[])\]", r"\1", part)
    return plain if glob.escape(plain) == part else None


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
