"""A machine behind SSH. One connection a host and process, shared by everything that asks."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import asyncssh

from ..errors import ReachError, TunedeckError
from .background import over_there
from .connect import connect
from .machine import Done, Progress
from .target import Target

T = TypeVar("T")

_SHELL = "exec /bin/bash"
"""Also of someone whose login shell is not one of POSIX."""

_MARK = b"\x1etunedeck\n"
"""Printed first: what login scripts say before it is not the script's own output."""

_BLOCK = 1 << 18
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_SHELLS = 6
"""At a time: sshd allows ten sessions a connection unless it is told otherwise."""


@dataclass(slots=True)
class _Link:
    """The connection to a host, opened when it is needed and again when it was lost."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shells: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_SHELLS))
    connection: asyncssh.SSHClientConnection | None = None
    sftp: asyncssh.SFTPClient | None = None
    failure: ReachError | None = None
    failed_at: float = 0.0
    pause_s: float = 0.0

    async def open(self, target: Target) -> asyncssh.SSHClientConnection:
        """The connection. A host that was just out of reach is left alone, longer each time.

        Raises:
            ReachError: if it cannot be reached, or could not be a moment ago.
        """
        async with self.lock:
            if self.connection is None or self.connection.is_closed():
                if self.failure and time.monotonic() < self.failed_at + self.pause_s:
                    raise ReachError(self.failure.message, fix=self.failure.fix)
                try:
                    self.connection, self.sftp = await connect(target), None
                except ReachError as error:
                    self.failure, self.failed_at = error, time.monotonic()
                    self.pause_s = min(max(_FIRST_PAUSE_S, 2 * self.pause_s), _LONGEST_PAUSE_S)
                    raise
                self.failure, self.pause_s = None, 0.0
            return self.connection

    async def files(self, target: Target) -> asyncssh.SFTPClient:
        connection = await self.open(target)
        async with self.lock:
            if self.sftp is None:
                self.sftp = await connection.start_sftp_client()
            return self.sftp


_links: dict[Target, _Link] = {}
"""Belongs to the loop of the background thread."""


class RemoteMachine:
    """A login host."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.name = target.host

    async def run(self, script: str) -> Done:
        """Run a bash script there."""
        return await over_there(self._run(script))

    async def write(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        """Write small files by SFTP, side by side."""
        await over_there(self._write(files))

    async def send(self, source: Path, target: str, progress: Progress | None = None) -> None:
        """Copy a file or folder by SFTP."""
        await over_there(self._send(source, target, progress))

    async def read(self, path: str, offset: int, limit: int) -> bytes:
        """Read part of a file by SFTP."""
        return await over_there(self._read(path, offset, limit))

    async def _run(self, script: str) -> Done:
        async with self._link.shells:
            process = await self._start(script)
            try:
                out, err = await self._reached(process.communicate())
            finally:
                process.close()
        if process.returncode is None:
            raise ReachError(f"The connection to {self.name} was lost.")
        said = bytes(out or b"").partition(_MARK)[2]
        return Done(process.returncode, said.decode(errors="replace"), _text(err))

    @property
    def _link(self) -> _Link:
        return _links.setdefault(self.target, _Link())

    async def _start(self, script: str) -> asyncssh.SSHClientProcess[bytes]:
        """Hand a script to a new shell; a connection that has died unnoticed is opened again."""
        process = None
        while process is None:
            connection = await self._link.open(self.target)
            try:
                process = await connection.create_process(_SHELL, encoding=None)
            except (asyncssh.Error, OSError) as error:
                if not connection.is_closed():
                    raise ReachError(f"{self.name} opens no shell: {error}") from error
        text = f"printf '\\036tunedeck\\n'\n{{\n{script}\n}} < /dev/null\n"
        process.stdin.write(text.encode())
        process.stdin.write_eof()
        return process

    async def _write(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        sftp = await self._sftp()
        await asyncio.gather(*(self._write_one(sftp, path, *what) for path, what in files.items()))

    async def _write_one(
        self, sftp: asyncssh.SFTPClient, path: str, data: bytes, mode: int
    ) -> None:
        folder, _, name = path.rpartition("/")
        draft = f"{folder}/.{name}.{secrets.token_hex(4)}"
        attributes = asyncssh.SFTPAttrs(permissions=mode)
        with _FileTrouble(self.name, path):
            async with await self._reached(sftp.open(draft, "wb", attributes)) as file:
                await self._reached(file.write(data))
                await self._reached(file.setstat(attributes))
            await self._reached(sftp.posix_rename(draft, path))

    async def _send(self, source: Path, target: str, progress: Progress | None) -> None:
        sftp = await self._sftp()
        told = (lambda _s, _d, done, whole: progress(done, whole)) if progress else None
        with _FileTrouble(self.name, target):
            # What links point to is meant: a folder of Hugging Face's cache is made of them.
            work = sftp.put(
                str(source),
                target,
                recurse=source.is_dir(),
                follow_symlinks=True,
                progress_handler=told,
            )
            await self._reached(work)

    async def _read(self, path: str, offset: int, limit: int) -> bytes:
        sftp = await self._sftp()
        with _FileTrouble(self.name, path):
            try:
                # Opened anew each time: a network file system then asks its server what there is.
                async with await self._reached(sftp.open(path, "rb", block_size=_BLOCK)) as file:
                    data = await self._reached(file.read(limit, offset))
            except asyncssh.SFTPNoSuchFile:
                return b""
        assert isinstance(data, bytes)
        return data

    async def _sftp(self) -> asyncssh.SFTPClient:
        try:
            return await self._link.files(self.target)
        except (asyncssh.Error, OSError) as error:
            raise ReachError(f"{self.name} offers no file transfer (SFTP): {error}") from error

    async def _reached(self, work: Awaitable[T]) -> T:
        """Await something that a lost connection ends.

        Raises:
            ReachError: if it did.
        """
        try:
            return await work
        except asyncssh.SFTPConnectionLost as error:
            raise ReachError(f"The connection to {self.name} was lost.") from error
        except asyncssh.SFTPError:
            raise
        except (asyncssh.Error, OSError) as error:
            raise ReachError(f"The connection to {self.name} was lost: {error}") from error


class _FileTrouble:
    """Says in words what the far side's file system refused."""

    def __init__(self, host: str, path: str) -> None:
        self._host, self._path = host, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, asyncssh.SFTPError):
            return
        if isinstance(error, asyncssh.SFTPNoSuchFile):
            words, fix = "there is no such file or folder", "Check the path in the profile."
        elif isinstance(error, asyncssh.SFTPPermissionDenied):
            words, fix = "permission denied", "Choose a folder that you may write to."
        else:
            words = error.reason or "the file system refused it"
            fix = f"See whether its disk is full or your quota is used up: ssh {self._host} df -h"
        raise TunedeckError(f"{self._path} on {self._host}: {words}.", fix=fix) from error


def _text(data: bytes | str | None) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data or ""
