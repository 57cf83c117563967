from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunedeck.core.drafts import list_drafts

_LEAVES_ALTERNATE_SCREEN = b"\x1b[?1049l"
_STOPS_MOUSE = b"\x1b[?1000l"


class _Terminal:
    """The wizard on a terminal of 80×24."""

    def __init__(self, *arguments: str, **env: str) -> None:
        self._master, worker = pty.openpty()
        fcntl.ioctl(worker, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(worker)
        self._worker = worker
        self.data = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunedeck", *arguments],
            stdin=worker,
            stdout=worker,
            stderr=worker,
            env={**os.environ, "TERM": "xterm-256color", **env},
            start_new_session=True,
        )

    def read(self, seconds: float = 0.1) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        self.data += os.read(self._master, 65536)
        return True

    def until(self, text: str) -> None:
        deadline = time.monotonic() + 90
        while text not in self.text:
            assert time.monotonic() < deadline, self.text[-2000:]
            assert self.process.poll() is None or self.read(), self.text
            self.read()

    def until_it_reads(self) -> None:
        """Wait until it sleeps: a signal that comes just before is heard with the next line."""
        stat = Path(f"/proc/{self.process.pid}/stat")
        deadline = time.monotonic() + 60
        while stat.read_text().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?<>=]*[a-zA-Z]", "", self.data.decode(errors="replace"))

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def ends(self) -> int:
        deadline = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it did not end"
            self.read()
        while self.read():
            pass
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._worker)

    def modes(self) -> list[object]:
        return termios.tcgetattr(self._worker)


@pytest.fixture
def terminal() -> Iterator[Callable[..., _Terminal]]:
    opened: list[_Terminal] = []

    def start(*arguments: str, **env: str) -> _Terminal:
        opened.append(_Terminal(*arguments, **env))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(
    terminal: Callable[..., _Terminal], number: signal.Signals
) -> None:
    wizard = terminal()
    wizard.until("Demo launch")
    wizard.process.send_signal(number)
    assert wizard.ends() == 128 + number
    assert _LEAVES_ALTERNATE_SCREEN in wizard.data
    assert _STOPS_MOUSE in wizard.data
    assert wizard.modes() == wizard.before


def test_quitting_exits_0_and_leaves_the_terminal_as_it_was(
    terminal: Callable[..., _Terminal],
) -> None:
    wizard = terminal()
    wizard.until("Demo launch")
    wizard.type(b"\x11")
    assert wizard.ends() == 0
    assert wizard.modes() == wizard.before


@pytest.mark.parametrize("name", ["dumb", ""])
def test_a_dumb_terminal_is_refused_and_told_of_the_prompts(
    terminal: Callable[..., _Terminal], name: str
) -> None:
    wizard = terminal(TERM=name)
    assert wizard.ends() == 2
    assert "tunedeck --plain" in wizard.text
    assert "tunedeck steps run --help" in wizard.text


@pytest.mark.parametrize("asked", [{"ACCESSIBLE": "1"}, {"TERM": "dumb"}])
def test_the_prompts_walk_to_a_plan_without_drawing(
    terminal: Callable[..., _Terminal], asked: dict[str, str]
) -> None:
    arguments = ["--read-only"] + (["--plain"] if "TERM" in asked else [])
    wizard = terminal(*arguments, **asked)
    wizard.until("What [")
    wizard.type(b"new\r")
    wizard.until("Step [")
    wizard.type(b"peft/automodel\r")
    wizard.until("Config [")
    wizard.type(b"tiny\r")
    wizard.until("Change:")
    wizard.type(b"optimizer.lr\r")
    wizard.until("optimizer.lr [")
    wizard.type(b"5e-4\r")
    wizard.until("5e-4\r\nChange:")
    wizard.type(b"\r")
    wizard.until("Where it runs [")
    wizard.type(b"1\r")
    wizard.until("Review [")
    wizard.type(b"submit\r")
    wizard.until("Submitting is off: the prompts were opened with --read-only.")
    wizard.type(b"quit\r")
    assert wizard.ends() == 0
    assert "optimizer.lr=5e-4" in wizard.text
    assert b"\x1b[?1049h" not in wizard.data


@pytest.mark.parametrize("interrupted", [True, False], ids=["ctrl-c", "end of input"])
def test_prompts_that_are_left_keep_what_was_chosen(
    terminal: Callable[..., _Terminal], interrupted: bool
) -> None:
    wizard = terminal("--plain", TERM="dumb")
    for asked, answer in (
        ("What [", b"new"),
        ("Step [", b"peft/automodel"),
        ("Config [", b"tiny"),
        ("Change:", b"rng.seed=7"),
    ):
        wizard.until(asked)
        wizard.type(answer + b"\r")
    wizard.until("seed=7\r\nChange:")
    if interrupted:
        wizard.until_it_reads()
        wizard.process.send_signal(signal.SIGINT)
    else:
        wizard.type(b"\x04")
    assert wizard.ends() == 0
    assert "Traceback" not in wizard.text
    (draft,) = list_drafts()
    assert draft.selection.overrides == ("rng.seed=7",)
