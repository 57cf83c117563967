"""What the rest of Tunedeck asks of a machine, wherever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from .target import Target


@dataclass(frozen=True, slots=True)
class Done:
    """How a script ended and what it printed."""

    code: int
    out: str
    err: str


class Machine(Protocol):
    """A machine with a shell and a file system."""

    name: str

    async def run(self, script: str) -> Done:
        """Run a bash script, handed over on standard input so that no process list shows it.

        Raises:
            ReachError: if the machine cannot be reached or the connection is lost on the way.
            AuthenticationError: if it does not let us in, or its host key is not trusted.
        """
        ...

    async def write(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        """Write files whole: path → content and mode. Their folders are there.

        Each is written under another name, with its mode from the first byte, and then renamed.

        Raises:
            ReachError: if the connection is lost.
            TunedeckError: if a file cannot be written; the path and the reason.
        """
        ...

    async def send(self, source: Path, target: str, on_bytes: Callable[[int], None]) -> None:
        """Copy a file or a folder of this machine to a path whose folder is there.

        `on_bytes` is told, in the caller's loop, how many bytes of it are across.

        Raises:
            ReachError, TunedeckError: as `write`.
        """
        ...

    async def read(self, path: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of a file from an offset on; none at its end or without a file.

        Any number of files can be read at a time; they take no shell of which a host allows few.

        Raises:
            ReachError, TunedeckError: as `write`.
        """
        ...


def open_machine(values: Mapping[str, Any], *, ssh: bool) -> Machine:
    """The machine that a profile's commands run on. Nothing is connected before it is used."""
    if ssh:
        from .remote import RemoteMachine

        return RemoteMachine(Target.of(values))
    from .here import ThisMachine

    return ThisMachine()
