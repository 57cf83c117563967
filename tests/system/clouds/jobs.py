"""A job of a fake: the submitted command, run for real as a local process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.ports import held_port

_GRACE_S = 10.0


@dataclass(slots=True)
class LogEntry:
    """A line of a job's log without its newline, and when it was written (Unix ns)."""

    text: str
    at_ns: int


@dataclass
class LocalJob:
    """A container that is none: its command, environment and mounts.

    A path at which something is mounted is replaced by the folder that stands for it, in the
    command and in the environment: so no root is needed, and two jobs see different storage.

    Attributes:
        command: the words that are run.
        env: the whole environment, secrets among it; a small one of an image's own comes first.
        mounts: where something is mounted → the folder here.
        folder: the job's own disk.
    """

    command: Sequence[str]
    env: Mapping[str, str]
    mounts: Mapping[str, Path]
    folder: Path
    lines: list[LogEntry] = field(default_factory=list)
    exit_code: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    stopped: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> None:
        """Start the command. A job that was stopped before never starts."""
        with self._changed:
            if self.stopped:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            self.started_at = time.time()
            self._process = subprocess.Popen(
                [self._seen_here(word) for word in self.command],
                env={**self._image(), **{k: self._seen_here(v) for k, v in self.env.items()}},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=self._read, daemon=True).start()

    def stop(self, grace_s: float = _GRACE_S) -> None:
        """SIGTERM to the first process, as a container gets it, then SIGKILL to all."""
        with self._changed:
            self.stopped = True
            process = self._process
            if process is None:
                self.ended_at = time.time()
                self._changed.notify_all()
                return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)

        def kill() -> None:
            if not self.wait(grace_s):
                self._kill_all()

        threading.Thread(target=kill, daemon=True).start()

    def kill(self) -> None:
        """SIGKILL to all, as when a machine goes away."""
        with self._changed:
            self.stopped = True
        self._kill_all()

    @property
    def running(self) -> bool:
        """Whether it has started and not ended."""
        return self.started_at is not None and self.ended_at is None

    def wait(self, seconds: float) -> bool:
        """Wait until it has ended; whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ended_at is not None, seconds)

    def follow(self, begin: int = 0) -> Iterator[LogEntry | None]:
        """Lines from a number on until the job has ended; None now and then while none comes."""
        while True:
            with self._changed:
                if len(self.lines) <= begin and self.ended_at is None:
                    self._changed.wait(0.5)
                new, over = self.lines[begin:], self.ended_at is not None
            begin += len(new)
            yield from new
            if over and not new:
                return
            if not new:
                yield None

    def _read(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                text = line.decode("utf-8", "replace").removesuffix("\n")
                self.lines.append(LogEntry(text, time.time_ns()))
                self._changed.notify_all()
        process.stdout.close()
        code = process.wait()
        self._kill_all()
        with self._changed:
            self.exit_code = 128 - code if code < 0 else code
            self.ended_at = time.time()
            self._changed.notify_all()

    def _kill_all(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _image(self) -> dict[str, str]:
        """What an image sets by itself; its Python is the one that runs the tests."""
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def _seen_here(self, text: str) -> str:
        for mounted, folder in self.mounts.items():
            text = re.sub(rf"{re.escape(mounted.rstrip('/'))}(?![\w.-])", str(folder), text)
        return text


def free_port() -> int:
    """A port of loopback for the nodes of a job to meet at: none else gets it as the tests run."""
    held = held_port()
    port: int = held.getsockname()[1]
    held.detach()
    return port
