"""The digests of a checkpoint's files, in the form that `sha256sum -c SHA256SUMS` reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...core.files import write_atomic

SUMS_FILE = "SHA256SUMS"


def sha256(file: Path) -> str:
    """Digest of a file's content, hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Record digests by path below the folder, with `/` between its parts."""
    lines = (f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    write_atomic(folder / SUMS_FILE, "".join(lines))


def read_sums(folder: Path) -> dict[str, str]:
    """The recorded digests by path; empty where none were recorded."""
    try:
        lines = (folder / SUMS_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    pairs = (line.partition("  ") for line in lines)
    return {name: digest for digest, _, name in pairs if name}


def damage(folder: Path, names: Iterable[str]) -> str | None:
    """What is wrong with the first of these files that is not as it was recorded.

    Args:
        folder: the checkpoint.
        names: paths below it.

    Returns:
        A sentence that names the file; None if all are whole.
    """
    recorded = read_sums(folder)
    for name in names:
        file = folder / name
        try:
            if name not in recorded:
                return f"{folder / SUMS_FILE} is damaged: it does not name {file}."
            if sha256(file) != recorded[name]:
                return f"{file} is damaged: its content is not what was saved."
        except FileNotFoundError:
            return f"{file} is missing."
        except OSError as error:
            return f"{file} cannot be read: {error.strerror}."
    return None
