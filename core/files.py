"""Writing files so that a crash, a full disk or a second process never leaves half of one."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path


def write_atomic(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Write to a temporary name in the same folder, flush to disk, then replace.

    Args:
        path: the file to write; its folder is made if it is missing.
        content: text (written as UTF-8) or bytes.
        mode: permission bits, set before the content is written.

    Raises:
        OSError: if the folder is not writable or the disk is full; `path` is then untouched.
    """
    write_together([(path, content, mode)])


def write_together(files: Iterable[tuple[Path, str | bytes, int]]) -> None:
    """Write several files as `write_atomic` does; none is replaced before all are on the disk.

    Args:
        files: of each its path, content and mode.

    Raises:
        OSError: if one cannot be written; all are then untouched.
    """
    with contextlib.ExitStack() as stack:
        drafts = [(stack.enter_context(_draft(*file)), file[0]) for file in files]
        for draft, path in drafts:
            draft.replace(path)


@contextlib.contextmanager
def _draft(path: Path, content: str | bytes, mode: int) -> Iterator[Path]:
    """What a file is to be, on the disk beside it under another name; removed on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield Path(temporary)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        if isinstance(error, OSError) and error.filename in (None, temporary):
            error.filename = str(path)  # a full disk does not say which file it was
        raise


def is_full(folder: Path) -> bool:
    """Whether nothing more can be written to the disk that a folder is on."""
    try:
        return shutil.disk_usage(folder).free == 0
    except OSError:
        return False


def back_up(path: Path) -> Path:
    """Copy a file to the first of `.bak`, `.bak.1`, `.bak.2`, … that is free, and return that.

    Raises:
        OSError: if there is no room for it, or the folder is not writable.
    """
    content = path.read_bytes()
    number = 0
    while True:
        backup = path.with_name(f"{path.name}.bak{f'.{number}' if number else ''}")
        try:
            with backup.open("xb") as file:
                file.write(content)
        except FileExistsError:
            number += 1
        else:
            backup.chmod(stat.S_IMODE(path.stat().st_mode))
            return backup


def on_network(path: Path, table: Path = Path("/proc/self/mounts")) -> bool:
    """Whether a path lies on a file system that several machines may have mounted.

    Args:
        path: the path; it need not be there.
        table: the mounts, as proc(5) describes them. Where there is no such file, none is known.
    """
    try:
        mounts = table.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    folders = [path.absolute(), *path.absolute().parents]
    kinds = {line.split(" ")[1]: line.split(" ")[2] for line in mounts.splitlines()}
    kind = next((kinds[str(folder)] for folder in folders if str(folder) in kinds), "")
    return kind.startswith(("nfs", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb", "afs", "9p"))
