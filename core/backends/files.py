"""What a backend offers where the files of its runs can be brought home."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from .base import Handle


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a run over there.

    Attributes:
        name: its path below the run's folder.
        size: in bytes.
        mark: tells its content from another of the same size: a digest, or when it was written.
            Empty where nothing does.
    """

    name: str
    size: int
    mark: str = ""


@runtime_checkable
class KeepsFiles(Protocol):
    """A backend whose runs leave files that can be brought home."""

    async def files(self, handle: Handle) -> Sequence[RemoteFile]:
        """The files of a run; links to checkpoints are followed."""
        ...

    async def fetch(
        self, handle: Handle, name: str, target: Path, offset: int, on_bytes: Callable[[int], None]
    ) -> None:
        """Append what follows `offset` of a file to `target`, and check it where that can be."""
        ...


@runtime_checkable
class ShipsFiles(Protocol):
    """A backend whose runs leave files where only its jobs can read: a job sends them."""

    async def ship(
        self,
        handle: Handle,
        patterns: Sequence[str],
        here: Mapping[str, str],
        on_bytes: Callable[[int, int], None],
    ) -> bytes:
        """A tar archive of the files that fit and are not `here` (name → hex of SHA-256)."""
        ...
