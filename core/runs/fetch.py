"""Bringing a run's files home: what it made, what it measured, and how it was set."""

from __future__ import annotations

import asyncio
import fcntl
import fnmatch
import glob
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath

from ..backends.base import Handle
from ..backends.files import KeepsFiles, RemoteFile, ShipsFiles
from ..errors import TunedeckError, UsageError
from ..files import write_atomic
from .outcome import RESULT
from .record import RunRecord

_USUAL = (
    *("*.json", "*.yaml", "job.sh", "*.jsonl", "node_*.txt"),
    *("checkpoints/latest/*", "checkpoints/best/*", "merged/*"),
)
_NOT_USUAL = (".*",)
_PART = ".part"
_MARKS, _LOCK = ".fetched.json", ".fetch.lock"
_LOCK_LOOK_S = 0.5


async def fetch(
    record: RunRecord,
    backend: object,
    pattern: str | None,
    on_progress: Callable[[str, int, int], None],
) -> list[Path]:
    """Bring files of a run into its folder on this machine.

    A file that is here in full is left; one that came only in part is gone on with. One that has
    changed over there since comes anew, also where its size is the same.

    Args:
        record: the run.
        backend: its backend.
        pattern: a glob over paths below the run's folder; None takes results, metrics, configs and
            the latest and best checkpoint without the optimizer's state.
        on_progress: told the file, its bytes here, and its size.

    Raises:
        UsageError: if the run keeps no files elsewhere, or none fits the pattern.
        ReachError: if the connection is lost; start again to go on.
        TunedeckError: if a file came home damaged.
    """
    from .shipped import SeenFromHere

    handle = record.backend_handle
    source = SeenFromHere.of(record) or backend
    if handle is None or not isinstance(source, KeepsFiles | ShipsFiles):
        raise UsageError(
            f"The files of {record.run_id} are on this machine: {record.run_dir}",
            fix="There is nothing to fetch: use them where they are.",
        )
    async with _alone(record.run_dir):
        if isinstance(source, KeepsFiles):
            files = [file for file in await source.files(handle) if _wanted(file.name, pattern)]
            brought = [
                await _bring(source, handle, file, record.run_dir, on_progress) for file in files
            ]
        else:
            brought = await _unpack(record, source, handle, pattern, on_progress)
    if not brought:
        raise UsageError(
            f"{record.run_id} has no file that fits '{pattern or 'the usual ones'}' yet.",
            fix="A pattern is over paths below the run's folder, for example 'checkpoints/*/*'.",
        )
    return brought


async def _unpack(
    record: RunRecord,
    source: ShipsFiles,
    handle: Handle,
    pattern: str | None,
    on_progress: Callable[[str, int, int], None],
) -> list[Path]:
    """Write the files that a job sends, each whole at once; where they are then."""
    from .shipped import shipped

    patterns = _USUAL if pattern is None else (pattern.rstrip("/"),)
    wanted = partial(_wanted, pattern=pattern)
    brought = []
    files = shipped(record, source, handle, patterns, wanted, on_progress)
    async with aclosing(files) as entries:
        async for name, content in entries:
            target = _place(record.run_dir, name)
            if content is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(target, content)
            brought.append(target)
    return sorted(brought)


async def bring_result(record: RunRecord, backend: object) -> None:
    """Bring home the small file that says what a run made and how good that is.

    One that cannot be had now comes with `fetch`: a run has ended all the same.
    """
    from .shipped import SeenFromHere

    handle = record.backend_handle
    backend = SeenFromHere.of(record) or backend
    if handle is None or not isinstance(backend, KeepsFiles):
        return
    with suppress(TunedeckError, OSError):
        for file in await backend.files(handle):
            if file.name == RESULT:
                async with _alone(record.run_dir):
                    await _bring(backend, handle, file, record.run_dir, lambda *_: None)


@asynccontextmanager
async def _alone(folder: Path) -> AsyncIterator[None]:
    """Wait until no other process brings files into a folder, and keep others out meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_LOOK_S)
        yield


async def _bring(
    backend: KeepsFiles,
    handle: Handle,
    file: RemoteFile,
    folder: Path,
    on_progress: Callable[[str, int, int], None],
) -> Path:
    """Bring a file home unless it is; where it is then.

    Raises:
        TunedeckError: if it came with less than it was said to have.
    """
    target = _place(folder, file.name)
    marks = _marks(folder)
    whole = target.is_file() and target.stat().st_size == file.size
    if whole and marks.get(file.name, "") == file.mark:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{_short(file)}{_PART}")
    for other in target.parent.glob(f"{glob.escape(target.name)}.*{_PART}"):
        if other != part:
            other.unlink()
    offset = part.stat().st_size if part.exists() else 0
    if offset > file.size:
        part.unlink()
        offset = 0
    part.touch()
    told = lambda here: on_progress(file.name, here, file.size)  # noqa: E731
    await backend.fetch(handle, file.name, part, offset, told)
    if (size := part.stat().st_size) < file.size:  # more is no fault: it is being written to
        part.unlink()
        raise TunedeckError(
            f"{file.name} came home with {size} bytes in place of {file.size}.",
            fix="It may have been written just then. Fetch it again.",
        )
    part.replace(target)
    write_atomic(folder / _MARKS, json.dumps({**marks, file.name: file.mark}))
    return target


def _marks(folder: Path) -> dict[str, str]:
    """File → the mark with which it came home."""
    try:
        marks: dict[str, str] = json.loads((folder / _MARKS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return marks


def _short(file: RemoteFile) -> str:
    """What a part of this content, and of no other, is called by."""
    return hashlib.sha256(f"{file.size} {file.mark}".encode()).hexdigest()[:8]


def _place(folder: Path, name: str) -> Path:
    """Where a file goes. What another machine names must not lead out of the folder.

    Raises:
        TunedeckError: if it would.
    """
    if ".." in PurePosixPath(name).parts or name.startswith("/"):
        raise TunedeckError(f"The run names a file outside its folder: {name}")
    return folder / name


def _wanted(name: str, pattern: str | None) -> bool:
    if pattern is not None:
        return _fits(name, pattern) or name.startswith(f"{pattern.rstrip('/')}/")
    return any(_fits(name, one) for one in _USUAL) and not any(
        fnmatch.fnmatch(PurePosixPath(name).name, one) for one in _NOT_USUAL
    )


def _fits(name: str, pattern: str) -> bool:
    """As a shell's glob: a star stays within one folder."""
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatch, parts, patterns))
