"""Bringing a run's files home: what it made, what it measured, and how it was set."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from .backends.base import Handle
from .errors import TunedeckError, UsageError
from .outcome import RESULT
from .record import RunRecord

_USUAL = (
    *("*.json", "*.yaml", "job.sh", "*.jsonl", "node_*.txt"),
    *("checkpoints/latest/*", "checkpoints/best/*", "merged/*"),
)
_NOT_USUAL = (".*",)
_PART = ".part"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a run, by its path below the run's folder over there, and its size in bytes."""

    name: str
    size: int


@runtime_checkable
class KeepsFiles(Protocol):
    """A backend whose runs leave files that can be brought home."""

    async def files(self, handle: Handle) -> Sequence[RemoteFile]:
        """The files of a run; links to checkpoints are followed."""
        ...

    async def fetch(
        self, handle: Handle, name: str, target: Path, offset: int, on_bytes: Callable[[int], None]
    ) -> None:
        """Append what follows `offset` of a file to `target`."""
        ...


async def fetch(
    record: RunRecord,
    backend: object,
    pattern: str | None,
    on_progress: Callable[[str, int, int], None],
) -> list[Path]:
    """Bring files of a run into its folder on this machine.

    A file that is here in full is left; one that came only in part is gone on with.

    Args:
        record: the run.
        backend: its backend.
        pattern: a glob over paths below the run's folder; None takes results, metrics, configs and
            the latest and best checkpoint without the optimizer's state.
        on_progress: told the file, its bytes here, and its size.

    Raises:
        UsageError: if the run keeps no files elsewhere, or none fits the pattern.
        ReachError: if the connection is lost; start again to go on.
    """
    handle = record.backend_handle
    if handle is None or not isinstance(backend, KeepsFiles):
        if handle is not None and record.backend != "local":
            raise UsageError(
                f"The files of {record.run_id} are on storage that only jobs see: "
                f"{handle.data.get('run_dir')}",
                fix="Copy them from a machine or a pod that mounts it.",
            )
        raise UsageError(
            f"The files of {record.run_id} are on this machine: {record.run_dir}",
        )
    found = [file for file in await backend.files(handle) if _wanted(file.name, pattern)]
    if not found:
        raise UsageError(
            f"{record.run_id} has no file that fits '{pattern or 'the usual ones'}' yet.",
            fix="A pattern is over paths below the run's folder, for example 'checkpoints/*/*'.",
        )
    brought = []
    for file in found:
        target = _place(record.run_dir, file.name)
        if not (target.is_file() and target.stat().st_size == file.size):
            await _bring(backend, handle, file, target, on_progress)
        brought.append(target)
    return brought


async def bring_result(record: RunRecord, backend: object) -> None:
    """Bring home the small file that says what a run made and how good that is.

    One that cannot be had now comes with `fetch`: a run has ended all the same.
    """
    handle = record.backend_handle
    if handle is None or not isinstance(backend, KeepsFiles):
        return
    with suppress(TunedeckError, OSError):
        for file in await backend.files(handle):
            if file.name == RESULT:
                await _bring(backend, handle, file, record.run_dir / RESULT, lambda *_: None)


async def _bring(
    backend: KeepsFiles,
    handle: Handle,
    file: RemoteFile,
    target: Path,
    on_progress: Callable[[str, int, int], None],
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + _PART)
    offset = part.stat().st_size if part.exists() else 0
    if offset > file.size:
        part.unlink()
        offset = 0
    part.touch()
    told = lambda here: on_progress(file.name, here, file.size)  # noqa: E731
    await backend.fetch(handle, file.name, part, offset, told)
    part.replace(target)


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
