"""Stands between a local run and its launcher: starts it, outlives the launcher, records its end.

`python -P -m tunedeck.core.backends.local.supervise` reads one JSON document from its standard
input (`run_id`, `run_dir`, `argv`, `env`, `cwd`, `grace_s`): secrets are in `env`, so it passes
through no file and no process list. It answers with one JSON line, `{"pid": …}` or
`{"error": …}`, once the command has started, and lets go of its launcher. Only the standard
library is used.

It is told what to do by signals: SIGUSR1 cancels the run; SIGTERM, which is what a machine sends as
it shuts down, is handed on to the run, whose own end then counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...files import write_atomic
from ...process import ProcessMark, processes_of, signal_all

LOG = "log.txt"
JOB = "job.json"
SENTINEL = "exit.json"
EXIT_FILE_VARIABLE = "TUNEDECK_EXIT_FILE"
"""Names a file into which the command may write the exit code it means, for a launcher in between
that changes it (torchrun makes a 1 of every failure)."""

CANNOT_EXECUTE = 127
"""What a shell answers when there is no such command."""

_STRAGGLERS_S = 5.0
_RESERVED = ".exit.reserved"
_RESERVED_BYTES = 4096


@dataclass(slots=True)
class Supervisor:
    """One run while it lasts."""

    run_id: str
    folder: Path
    argv: list[str]
    env: dict[str, str]
    cwd: str
    grace_s: float
    cancelled: bool = False
    kill_at: float | None = None
    job: dict[str, Any] = field(default_factory=dict)

    def claim(self) -> None:
        """Take the run for this process.

        Raises:
            FileExistsError: if another supervisor has it.
            OSError: if the folder cannot be written to.
        """
        mark = ProcessMark.of(os.getpid())
        assert mark is not None
        self.job = {"supervisor": mark.to_json(), "created_at": time.time()}
        # Blocks that are the run's from the start: its sentinel fits on a disk that is full.
        write_atomic(self.folder / _RESERVED, b" " * _RESERVED_BYTES)
        draft = self.folder / f".{JOB}.{mark.pid}"
        write_atomic(draft, json.dumps(self.job))
        try:
            os.link(draft, self.folder / JOB)
        finally:
            draft.unlink()

    def start(self, log: int) -> subprocess.Popen[bytes]:
        """Start the command in a session of its own, so that a signal to it does not come here.

        Raises:
            OSError: if there is no such command or folder.
        """
        child = subprocess.Popen(
            self.argv,
            env=self.env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        mark = ProcessMark.of(child.pid)
        self._note(command=mark.to_json() if mark else None, started_at=time.time())
        return child

    def wait(self, child: subprocess.Popen[bytes], wakeups: int) -> int:
        """Wait for the command, doing what the signals ask meanwhile; then end its stragglers."""
        while child.poll() is None:
            patience = None if self.kill_at is None else max(0.0, self.kill_at - time.monotonic())
            select.select([wakeups], [], [], patience)
            with contextlib.suppress(BlockingIOError):
                for number in os.read(wakeups, 64):
                    self._obey(number, child.pid)
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self.kill_at = None
                signal_all(processes_of(self.run_id, child.pid), signal.SIGKILL)
        self._end_stragglers(child.pid)
        return child.returncode

    def _obey(self, number: int, group: int) -> None:
        if number == signal.SIGUSR1 and not self.cancelled:
            self.cancelled = True
            self.kill_at = time.monotonic() + self.grace_s
            self._note(stopping=True)
        if number in (signal.SIGUSR1, signal.SIGTERM):
            signal_all(processes_of(self.run_id, group), signal.SIGTERM)

    def _end_stragglers(self, group: int) -> None:
        """A run ends with its first process: no rank or helper stays behind on a GPU."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            signal_all(processes_of(self.run_id, group), number)
            deadline = time.monotonic() + _STRAGGLERS_S
            while processes_of(self.run_id, group) and time.monotonic() < deadline:
                time.sleep(0.05)

    def _note(self, **facts: Any) -> None:
        """Add to the job file. A full disk must not end the run: what stands there suffices."""
        self.job.update(facts)
        with contextlib.suppress(OSError):
            write_atomic(self.folder / JOB, json.dumps(self.job))

    def record(self, returncode: int, log: int, *, error: str = "", oom: bool = False) -> None:
        """Write the log's last line and then the sentinel."""
        killed_by = -returncode if returncode < 0 else None
        code = returncode and (self._meant() or (128 + killed_by if killed_by else returncode))
        _append_line(log, self.folder / LOG, f"tunedeck: exit={code}")
        sentinel = {
            "exit_code": code,
            "signal": killed_by,
            "out_of_memory": oom,
            "cancelled": self.cancelled,
            "error": error,
            "started_at": self.job.get("started_at"),
            "ended_at": time.time(),
        }
        reserved = self.folder / _RESERVED
        with reserved.open("r+b") as file:
            file.write(json.dumps(sentinel).encode().ljust(_RESERVED_BYTES))
            file.flush()
            os.fsync(file.fileno())
        reserved.rename(self.folder / SENTINEL)

    def _meant(self) -> int | None:
        """The exit code that the command says it means, if it says one."""
        try:
            return int(Path(self.env[EXIT_FILE_VARIABLE]).read_text())
        except (KeyError, OSError, ValueError):
            return None


def _append_line(log: int, path: Path, line: str) -> None:
    """Append a line of our own to the log. A full disk is no matter: the sentinel says the same."""
    with contextlib.suppress(OSError):
        with path.open("rb") as written:
            written.seek(max(0, written.seek(0, os.SEEK_END) - 1))
            broken_off = written.read() not in (b"", b"\n")
        os.write(log, b"\n" * broken_off + line.encode() + b"\n")


def _kernel_oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory since the machine started."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _answer(**reply: Any) -> None:
    """Answer the launcher and let go of it; it may be gone."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(reply).encode() + b"\n")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)


def _listen_for_signals() -> int:
    """Turn signals into bytes on a pipe, and return its end to read from."""
    wakeups, waker = os.pipe()
    os.set_blocking(wakeups, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    # Handled and not ignored: what is ignored here would be ignored in the command as well.
    for name in ("SIGUSR1", "SIGTERM", "SIGCHLD", "SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), lambda *_: None)
    return wakeups


def main() -> int:
    """Supervise the run that standard input describes, in a process that no one waits for."""
    if os.fork():
        return 0
    wakeups = _listen_for_signals()
    text = sys.stdin.read()
    if not text:
        return 1  # the launcher ended before it said what to run
    spec = json.loads(text)
    run = Supervisor(folder=Path(spec.pop("run_dir")), **spec)
    try:
        run.claim()
        log = os.open(run.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        _answer(error=f"{run.folder}: {error.strerror}")
        return 1
    oom_kills = _kernel_oom_kills()
    try:
        child = run.start(log)
    except OSError as error:
        _answer(pid=os.getpid())
        message = f"cannot start {error.filename}: {error.strerror}"
        _append_line(log, run.folder / LOG, f"tunedeck: {message}")
        run.record(CANNOT_EXECUTE, log, error=message)
        return 1
    _answer(pid=os.getpid())
    returncode = run.wait(child, wakeups)
    oom = returncode == -signal.SIGKILL and _kernel_oom_kills() > oom_kills
    run.record(returncode, log, oom=oom)
    return 0


if __name__ == "__main__":
    sys.exit(main())
