"""Sending what a job needs to its bucket: in parts, so that what was sent before a cut stays."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle import bundle
from ...errors import UsageError
from ...inputs import content_digest, files_of
from ..layout import Upload
from .client import Hub
from .place import Storage

OnBytes = Callable[[str, int, int], None]
"""Told a file, the bytes of all files that are there, and how many there will be."""

_PART_BYTES, _PART_FILES = 64 << 20, 100


@dataclass(frozen=True, slots=True)
class _File:
    """A file here, and its name in the bucket."""

    of: Upload
    source: Path
    name: str
    size: int


async def upload(
    hub: Hub, storage: Storage, uploads: Sequence[Upload], on_bytes: OnBytes | None = None
) -> None:
    """Put into the bucket what is not there yet; make the bucket, private, if there is none.

    Everything lies under its digest, so a file that is there in its full size is right.

    Raises:
        UsageError: if an input has changed since it was planned.
        TunedeckError: if the service refuses.
    """
    bucket = storage.bucket
    await hub.call("create_bucket", bucket, private=True, exist_ok=True)
    files = await asyncio.to_thread(lambda: [f for one in uploads for f in _files(one, storage)])
    known = await hub.call("get_bucket_paths_info", bucket, [file.name for file in files])
    there = {file.path: file.size for file in known}
    missing = [file for file in files if there.get(file.name) != file.size]
    for one in {file.of: None for file in missing if file.of.kind != "code"}:
        await asyncio.to_thread(_check, one)
    sent, whole = 0, sum(file.size for file in missing)
    for part in _parts(missing):
        told = _teller(on_bytes, _called(part), sent, whole)
        told(0)
        await _send(hub, bucket, part, told)
        sent += sum(file.size for file in part)
    if on_bytes and missing:
        on_bytes(_called(missing), whole, whole)


async def put(hub: Hub, storage: Storage, path: str, content: bytes) -> None:
    """Write one small file into the bucket; `path` is the job's."""
    add = [(content, storage.inside(path))]
    await hub.call("batch_bucket_files", storage.bucket, add=add)


def _files(one: Upload, storage: Storage) -> Iterator[_File]:
    """An upload's files, as its digest has them."""
    target = storage.inside(one.target)
    source = bundle().archive() if one.kind == "code" else Path(one.source)
    for name, file in files_of(source):
        yield _File(one, file, f"{target}/{name}" if name else target, file.stat().st_size)


def _parts(files: Sequence[_File]) -> Iterator[list[_File]]:
    """What is sent, and is there, together."""
    part: list[_File] = []
    for file in files:
        part.append(file)
        if len(part) == _PART_FILES or sum(one.size for one in part) >= _PART_BYTES:
            yield part
            part = []
    if part:
        yield part


def _called(files: Sequence[_File]) -> str:
    """What to call files that are sent together: by the largest."""
    largest = max(files, key=lambda file: file.size)
    name = "Tunedeck's code" if largest.of.kind == "code" else largest.source.name
    return name if len(files) == 1 else f"{name} and {len(files) - 1} more"


async def _send(hub: Hub, bucket: str, part: Sequence[_File], told: Callable[[int], None]) -> None:
    """Send a part. What the library tells of its way is not public: it may be gone one day."""
    add = [(str(file.source), file.name) for file in part]
    inner = getattr(hub.api, "_batch_bucket_files", None)
    if inner and "_progress" in inspect.signature(inner).parameters:
        with suppress(TypeError, AttributeError):
            await hub.call(inner.__name__, bucket, add=add, _progress=_Progress(told))
            return
    await hub.call("batch_bucket_files", bucket, add=add)


class _Progress:
    """What the library's own progress bars are told, by their methods' names."""

    def __init__(self, told: Callable[[int], None]) -> None:
        self._told = told
        self._loop = asyncio.get_running_loop()

    def update_progress(self, total_update: Any, item_updates: Any) -> None:
        """Take in a report: bytes that were read, less those that wait to be sent.

        The arguments' names are hf_xet's: it looks at them.
        """
        total = total_update
        waiting = max(0, total.total_transfer_bytes - total.total_transfer_bytes_completed)
        here = max(0, total.total_bytes_completed - waiting)
        with suppress(RuntimeError):  # nobody waits any more
            self._loop.call_soon_threadsafe(self._told, here)

    def reset_for_next_commit(self) -> None:
        """Nothing: each part has a progress of its own."""

    def notify_upload_complete(self) -> None:
        """Nothing: called by versions before 1.31 between files and bytes."""

    def close(self, *_: Any) -> None:
        """Nothing: no bar was drawn."""


def _teller(on_bytes: OnBytes | None, name: str, sent: int, whole: int) -> Callable[[int], None]:
    most = sent

    def told(part: int) -> None:
        nonlocal most
        most = max(most, min(sent + part, whole))
        if on_bytes:
            on_bytes(name, most, whole)

    return told


def _check(one: Upload) -> None:
    source = Path(one.source)
    if content_digest(source)[0] != one.digest:
        raise UsageError(f"{source} has changed since the run was planned.", fix="Start it again.")
