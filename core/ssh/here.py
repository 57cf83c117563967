"""This machine, through the interface of those behind SSH: a login node that one works on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from ..errors import TunedeckError
from ..files import write_atomic
from .machine import Done


class ThisMachine:
    """This machine."""

    name = "this machine"

    async def run(self, script: str) -> Done:
        """Run a bash script here."""
        process = await asyncio.create_subprocess_exec(
            "/bin/bash",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        text = f"{{\n{script}\n}} < /dev/null\n"
        try:
            out, err = await process.communicate(text.encode())
        finally:
            _end(process)
        return Done(
            process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")
        )

    async def write(self, files: Mapping[str, tuple[bytes, int]]) -> None:
        """Write files here."""
        for path, (data, mode) in files.items():
            try:
                await asyncio.to_thread(write_atomic, Path(path), data, mode=mode)
            except OSError as error:
                raise TunedeckError(f"{path}: {error.strerror}.") from error

    async def send(self, source: Path, target: str, on_bytes: Callable[[int], None]) -> None:
        """Copy a file or folder. Of a copy on this machine nothing is told on the way."""
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        try:
            await asyncio.to_thread(copy, source, target)
        except OSError as error:
            raise TunedeckError(f"{target}: {error.strerror or error}.") from error

    async def read(self, path: str, offset: int, limit: int) -> bytes:
        """Read part of a file."""
        try:
            with Path(path).open("rb") as file:
                return os.pread(file.fileno(), limit, offset)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise TunedeckError(f"{path}: {error.strerror}.") from error


def _end(process: asyncio.subprocess.Process) -> None:
    """End what a script that is no longer waited for has started."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
