"""Files of a run from storage that this machine does not see, or that it sees as the jobs do."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

from ..backends.base import Handle
from ..backends.files import RemoteFile, ShipsFiles
from .record import RunRecord


async def shipped(
    record: RunRecord,
    backend: ShipsFiles,
    handle: Handle,
    patterns: Sequence[str],
    wanted: Callable[[str], bool],
    on_progress: Callable[[str, int, int], None],
) -> AsyncGenerator[tuple[str, bytes | None]]:
    """Name and content of each file of a run that fits; no content where the one here is the same.

    `patterns` are globs over paths below the run's folder, and `wanted` tells of a path whether it
    fits them. `on_progress` is told what comes, its bytes here, and its size.
    """
    folder = record.run_dir
    here = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and wanted(name := path.relative_to(folder).as_posix())
    }
    said = "a job at the service sends the files"
    on_progress(said, 0, 0)
    packed = await backend.ship(
        handle, patterns, here, lambda came, whole: on_progress(said, came, whole)
    )
    changed = set()
    if packed:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            for entry in tar:
                name, content = entry.name.removeprefix("./"), tar.extractfile(entry)
                if content is not None and wanted(name):
                    changed.add(name)
                    yield name, content.read()
    for name in here:
        if name not in changed:
            yield name, None


class SeenFromHere:
    """A run's folder on storage that this machine mounts at the same path as the jobs do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of(cls, record: RunRecord) -> SeenFromHere | None:
        """The folder of a run, where its profile says that it is seen from here."""
        handle, values = record.backend_handle, record.plan.get("profile_values") or {}
        if handle is None or not values.get("launched_from_cluster"):
            return None
        folder = Path(str(handle.data.get("run_dir") or ""))
        return cls(folder) if folder.is_absolute() and folder.is_dir() else None

    async def files(self, handle: Handle) -> Sequence[RemoteFile]:
        """The files below it, those behind links to checkpoints among them."""
        found = []
        for at, _, names in os.walk(self._folder, followlinks=True):
            for name in sorted(names):
                path = Path(at) / name
                told = path.stat()
                inner = path.relative_to(self._folder).as_posix()
                found.append(RemoteFile(inner, told.st_size, str(told.st_mtime_ns)))
        return found

    async def fetch(
        self, handle: Handle, name: str, target: Path, offset: int, on_bytes: Callable[[int], None]
    ) -> None:
        """Copy what follows `offset`."""
        with (self._folder / name).open("rb") as source, target.open("ab") as sink:
            source.seek(offset)
            shutil.copyfileobj(source, sink)
        on_bytes(target.stat().st_size)
