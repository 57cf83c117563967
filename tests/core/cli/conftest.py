"""What the tests of commands share: a terminal to run them on."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest


class Terminal:
    """A command on a terminal of its own: what it shows, and what is typed."""

    def __init__(self, arguments: list[str], **env: str) -> None:
        self._master, worker = pty.openpty()
        self._data = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunedeck", *arguments],
            stdin=worker,
            stdout=worker,
            stderr=worker,
            env={**os.environ, "TERM": "xterm", **env},
            close_fds=True,
        )
        os.close(worker)

    def until(self, text: str) -> str:
        """Wait until it shows a text; what it has shown so far, without colors."""
        deadline = time.monotonic() + 60
        while text not in (shown := self._shown()):
            assert time.monotonic() < deadline, shown
            if select.select([self._master], [], [], 0.2)[0]:
                try:
                    self._data += os.read(self._master, 65536)
                except OSError:  # the other end is closed
                    break
        assert text in self._shown(), self._shown()
        return self._shown()

    def _shown(self) -> str:
        return re.sub(r"\x1b\[[0-9;]*m", "", self._data.decode(errors="ignore"))

    def type(self, line: str) -> None:
        os.write(self._master, f"{line}\n".encode())

    def ends_with(self) -> int:
        code = self.process.wait(60)
        os.close(self._master)
        return code


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., Terminal]]:
    """Start a command on a terminal, in the working folder; it is gone after the test."""
    started: list[Terminal] = []

    def start(arguments: list[str], **env: str) -> Terminal:
        started.append(Terminal(arguments, **env))
        return started[-1]

    yield start
    for terminal in started:
        terminal.process.kill()
        terminal.process.wait()
