"""A machine behind SSH. One connection a host and process, shared by everything that asks."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import asyncssh

from ..errors import ReachError, TunedeckError
from ..text import strip_controls
from .background import over_there
from .connect import connect
from .machine import Done
from .target import Target

T = TypeVar("T")

_SHELL = "exec /bin/bash"
"""Also of someone whose login shell is not one of POSIX."""

_MARK = b"\x1etunedeck\n"
_BEGIN = "\n" * 32 + "printf '\\036tunedeck\\n'; printf '\\036tunedeck\\n' >&2\n"
"""Marks where a script's own output begins, on stdout and stderr: login scripts talk before it.

The empty lines are for those that ask something, and would read a line of the script as its answer.
"""

_RUN_LIMIT_S = 300.0
"""For one script: what hangs, as on a file system that is away, is not waited for in silence."""

_SESSION_ENDED = (asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection, asyncssh.SFTPBadMessage)

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

    def drop(self, sftp: asyncssh.SFTPClient) -> None:
        """Start another session for files: this one has ended, though the connection goes on."""
        if self.sftp is sftp:
            self.sftp = None


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

    async def send(self, source: Path, target: str, on_bytes: Callable[[int], None]) -> None:
        """Copy a file or folder by SFTP."""
        loop = asyncio.get_running_loop()

        def told(sent: int) -> None:
            with suppress(RuntimeError):  # nobody waits any more
                loop.call_soon_threadsafe(on_bytes, sent)

        await over_there(self._send(source, target, told))

    async def read(self, path: str, offset: int, limit: int) -> bytes:
        """Read part of a file by SFTP."""
        return await over_there(self._read(path, offset, limit))

    async def _run(self, script: str) -> Done:
        async with self._link.shells:
            process = await self._start()
            text = f"{_BEGIN}{{\n{script}\n}} < /dev/null\n"
            try:
                async with asyncio.timeout(_RUN_LIMIT_S):
                    out, err = await self._reached(process.communicate(text.encode()))
            except TimeoutError as error:
                raise ReachError(
                    f"A command on {self.name} did not end within {_RUN_LIMIT_S:.0f} s.",
                    fix=f"See whether the host or a file system of it hangs: ssh {self.name}",
                ) from error
            finally:
                process.close()
        if process.returncode is None:
            raise self._lost()
        _, begun, said = bytes(out or b"").partition(_MARK)
        own_err = bytes(err or b"").rpartition(_MARK)[2]
        if not begun:  # a shell that logs nobody in, or one that could not be started
            why = _last_line(bytes(err or b"")) or _last_line(bytes(out or b""))
            raise ReachError(
                f"{self.name} runs no commands: {why or f'exit code {process.returncode}'}",
                fix=f"Log in by hand and look at what it says: ssh {self.name}",
            )
        return Done(process.returncode, said.decode(errors="replace"), _text(own_err))

    @property
    def _link(self) -> _Link:
        return _links.setdefault(self.target, _Link())

    async def _start(self) -> asyncssh.SSHClientProcess[bytes]:
        """A new shell; a connection that has died unnoticed is opened again."""
        while True:
            connection = await self._link.open(self.target)
            try:
                return await connection.create_process(_SHELL, encoding=None)
            except (asyncssh.Error, OSError) as error:
                if not connection.is_closed():
                    raise ReachError(
                        f"{self.name} opens no shell: {error}",
                        fix=f"Log in by hand and look at what it says: ssh {self.name}",
                    ) from error

    async def _write(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        await asyncio.gather(*(self._write_one(path, *what) for path, what in files.items()))

    async def _write_one(self, path: str, data: bytes, mode: int) -> None:
        folder, _, name = path.rpartition("/")
        draft = f"{folder}/.{name}.{secrets.token_hex(4)}"
        attributes = asyncssh.SFTPAttrs(permissions=mode)
        async with self._files(path) as sftp:
            async with await sftp.open(draft, "wb", attributes) as file:
                await file.write(data)
                await file.setstat(attributes)
            await sftp.posix_rename(draft, path)

    async def _send(self, source: Path, target: str, told: Callable[[int], None]) -> None:
        across: dict[bytes, int] = {}
        whole = 0

        def count(name: bytes, _target: bytes, here: int, _size: int) -> None:
            nonlocal whole
            whole += here - across.get(name, 0)
            across[name] = here
            told(whole)

        async with self._files(target) as sftp:
            # What links point to is meant: a folder of Hugging Face's cache is made of them.
            await sftp.put(
                str(source),
                target,
                recurse=source.is_dir(),
                follow_symlinks=True,
                progress_handler=count,
            )

    async def _read(self, path: str, offset: int, limit: int) -> bytes:
        async with self._files(path) as sftp:
            try:
                # Opened anew each time: a network file system then asks its server what there is.
                async with await sftp.open(path, "rb", block_size=_BLOCK) as file:
                    data = await file.read(limit, offset)
            except asyncssh.SFTPNoSuchFile:
                return b""
        assert isinstance(data, bytes)
        return data

    @asynccontextmanager
    async def _files(self, path: str) -> AsyncGenerator[asyncssh.SFTPClient]:
        """The session for files, whose failures become errors of ours.

        Raises:
            ReachError: if there is none, or it is lost.
            TunedeckError: if the far side's file system refuses something about `path`.
        """
        try:
            sftp = await self._link.files(self.target)
        except (asyncssh.Error, OSError) as error:
            raise ReachError(
                f"{self.name} offers no file transfer (SFTP): {error}",
                fix="If your login scripts there print something, have them do so only where "
                "there is a terminal.",
            ) from error
        try:
            yield sftp
        except _SESSION_ENDED as error:
            self._link.drop(sftp)
            raise self._lost() from error
        except asyncssh.SFTPError as error:
            raise _file_trouble(self.name, path, error) from error
        except (asyncssh.Error, OSError) as error:
            if isinstance(error, OSError) and error.filename:  # of this machine
                raise TunedeckError(f"{error.filename}: {error.strerror}.") from error
            raise self._lost(error) from error

    async def _reached(self, work: Awaitable[T]) -> T:
        """Await something that a lost connection ends.

        Raises:
            ReachError: if it did.
        """
        try:
            return await work
        except (asyncssh.Error, OSError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception | None = None) -> ReachError:
        why = f": {error}" if error else "."
        return ReachError(
            f"The connection to {self.name} was lost{why}",
            fix="Jobs there go on without it. Try again.",
        )


def _file_trouble(host: str, path: str, error: asyncssh.SFTPError) -> TunedeckError:
    """What the far side's file system refused, in words."""
    if isinstance(error, asyncssh.SFTPNoSuchFile):
        words, fix = "there is no such file or folder", "Check the path in the profile."
    elif isinstance(error, asyncssh.SFTPPermissionDenied):
        words, fix = "permission denied", "Choose a folder that you may write to."
    else:
        words = error.reason or "the file system refused it"
        fix = f"See whether its disk is full or your quota is used up: ssh {host} df -h"
    return TunedeckError(f"{path} on {host}: {words}.", fix=fix)


def _last_line(data: bytes) -> str:
    lines = [line.strip() for line in _text(data).splitlines()]
    return next((strip_controls(line) for line in reversed(lines) if line), "")


def _text(data: bytes | str | None) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else data or ""
