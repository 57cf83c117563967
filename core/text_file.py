"""Reading a text file that a person wrote: what can be wrong with it, said with the remedy."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

from .errors import Place, UsageError


def read_text(path: Path, kind: str, limit: int) -> str:
    """Read a UTF-8 file, newlines as they are, without a byte order mark.

    Args:
        path: the file.
        kind: what it should be, for messages: `YAML`, `TOML`.
        limit: most bytes that are read.

    Raises:
        UsageError: if it is missing, no regular file, not readable, a link that leads back to
            itself, over the limit, or no UTF-8; with the place and the remedy.
    """
    place = Place(str(path))
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            found = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise UsageError(
                f"{path} is {found}, not a {kind} file.", place=place, fix="Name a file."
            )
        if status.st_size > limit:
            raise UsageError(
                f"{path} has {status.st_size / 1e6:.1f} MB; a {kind} file of more than "
                f"{limit / 1e6:g} MB is not read.",
                place=place,
                fix="Check that this is the file you meant.",
            )
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return _decode(raw, str(path))


def _unreadable(path: Path, error: OSError | ValueError) -> UsageError:
    place = Place(str(path))
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UsageError(f"There is no file {path}.", place=place, fix="Check the path.")
    if isinstance(error, PermissionError):
        return UsageError(
            f"{path} may not be read: permission denied.",
            place=place,
            fix=f"Give yourself read permission: chmod u+r {path}",
        )
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return UsageError(
            f"{path} is a symbolic link that leads back to itself.",
            place=place,
            fix="Replace the link by the file it should lead to.",
        )
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return UsageError(f"{path} cannot be read: {reason}.", place=place, fix="Check the path.")


def _decode(raw: bytes, file: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line_start = raw.rfind(b"\n", 0, error.start) + 1
        line = raw.count(b"\n", 0, error.start) + 1
        column = len(raw[line_start : error.start].decode("utf-8-sig", "replace")) + 1
        raise UsageError(
            f"The file is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}.",
            place=Place(file, line, column),
            fix="Save the file in the encoding UTF-8.",
        ) from error
