"""Bringing a log home: a copy on this machine of what a backend has elsewhere, byte for byte."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..backends.base import Backend, Handle, LogLine, ReadsBlocks
from ..errors import ReachError
from ..files import write_atomic

_SAVE_S = 1.0
_LOCK_LOOK_S = 0.5
_LAST_COPY_S = 90.0
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0


@dataclass(frozen=True, slots=True)
class SpoolState:
    """How far the copy is: the backend's cursor, the bytes it stands for, whether that is all."""

    cursor: str | None = None
    size: int = 0
    complete: bool = False


async def catch_up(handle: Handle, backend: Backend, log: Path) -> None:
    """Copy what there is of a job's log now. Another process that copies it is left to it.

    Raises:
        TunedeckError: if the backend cannot be reached or refuses.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.with_suffix(".lock").open("w") as lock:
        if _locked(lock.fileno()) and not (state := load_state(log)).complete:
            await _copy(handle, backend, log, state, follow=False)


async def bring_home(
    handle: Handle, backend: Backend, log: Path, on_trouble: Callable[[str], None]
) -> None:
    """Copy a job's log to `log` until the backend says that it is all.

    Each line is copied exactly once, over any number of lost connections, restarts and processes:
    one process copies at a time, the others wait to take its place. What was written after the
    cursor was last saved is written again, to the same place, so that a reader sees nothing twice.

    Args:
        handle: the job.
        backend: where its log is.
        log: the copy; its state is kept beside it.
        on_trouble: told of a lost connection, which is then tried again.

    Raises:
        TunedeckError: if the backend refuses; a lost connection is no reason to give up.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.with_suffix(".lock").open("w") as lock:
        while not _locked(lock.fileno()):
            await asyncio.sleep(_LOCK_LOOK_S)
        retry_s = _FIRST_RETRY_S
        while not (state := load_state(log)).complete:
            try:
                await _copy(handle, backend, log, state, follow=True)
            except ReachError as error:
                on_trouble(f"{error} Trying again in {retry_s:.0f} s.")
                await asyncio.sleep(retry_s)
                moved = load_state(log).size > state.size
                retry_s = _FIRST_RETRY_S if moved else min(retry_s * 2, _LAST_RETRY_S)


def load_state(log: Path) -> SpoolState:
    """How far the copy was when it was last saved; where that cannot be read, at its beginning."""
    try:
        return SpoolState(**json.loads(_state_file(log).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return SpoolState()


@asynccontextmanager
async def reopened(log: Path) -> AsyncIterator[None]:
    """Have a copy that was all there was go on, because its job does.

    The job is to be started within: who still copies what it said before is waited for, so that
    nobody takes the end of that for the end of all.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.with_suffix(".lock").open("w") as lock:
        deadline = time.monotonic() + _LAST_COPY_S
        while not _locked(lock.fileno()) and time.monotonic() < deadline:
            await asyncio.sleep(_LOCK_LOOK_S)
        yield
        state = load_state(log)
        if state.complete:
            write_atomic(_state_file(log), json.dumps(asdict(replace(state, complete=False))))


async def _copy(
    handle: Handle, backend: Backend, log: Path, state: SpoolState, *, follow: bool
) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT, 0o644)
    writer, saved_at = _Writer(file, state), time.monotonic()
    complete = False
    try:
        source = backend.log_blocks if isinstance(backend, ReadsBlocks) else backend.logs
        async with aclosing(source(handle, state.cursor, follow=follow)) as lines:
            async for entry in lines:
                writer.add(entry)
                if time.monotonic() - saved_at > _SAVE_S:
                    writer.flush()
                    _save(file, log, writer.state)
                    saved_at = time.monotonic()
        writer.flush()
        complete = follow
    finally:
        writer.drop()
        _save(file, log, replace(writer.state, complete=complete))
        os.close(file)


class _Writer:
    """Writes lines as soon as no more of them wait: those that came together, all at once.

    Attributes:
        state: how far the copy is, as of what is in the file.
    """

    def __init__(self, file: int, state: SpoolState) -> None:
        self.state = state
        self._file = file
        self._waiting: list[LogLine] = []

    def add(self, entry: LogLine) -> None:
        """Take a line; it is written when its source next lets others run."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush_now)
        self._waiting.append(entry)

    def flush(self) -> None:
        """Write what has been taken.

        Raises:
            OSError: if that cannot be written; it stays taken.
        """
        if self._waiting:
            data = b"\n".join([*(entry.line for entry in self._waiting), b""])
            size = self.state.size + _write_all(self._file, data, self.state.size)
            self.state = SpoolState(self._waiting[-1].cursor, size)
            self.drop()

    def drop(self) -> None:
        """Forget what has not been written: it is asked for again, from the cursor."""
        self._waiting.clear()

    def _flush_now(self) -> None:
        with suppress(OSError):  # said by the next flush that someone waits for
            self.flush()


def _write_all(file: int, data: bytes, position: int) -> int:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], position + written)
    return written


def _save(file: int, log: Path, state: SpoolState) -> None:
    """The log first: a cursor must never stand for bytes that a crash could still take."""
    os.fsync(file)
    write_atomic(_state_file(log), json.dumps(asdict(state)))


def _state_file(log: Path) -> Path:
    return log.with_suffix(".cursor")


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
