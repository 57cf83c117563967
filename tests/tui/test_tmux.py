"""The wizard in a real terminal emulator: typed walks, signals, resizing, coming back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.places import alive
from tunedeck.core.drafts import list_drafts
from tunedeck.core.process import processes_of, signal_all
from tunedeck.core.runs.registry import Registry

# A second try, for a machine so busy that a terminal stands still for a minute.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.flaky(reruns=1),
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]

_SHELL = "READY$ "


class _Tmux:
    """A shell in tmux, in which commands are typed."""

    def __init__(self, folder: Path, width: int, height: int) -> None:
        self._socket = str(folder / "tmux.sock")
        shell = f"env PS1='{_SHELL}' bash --norc --noprofile"
        size = ("-x", str(width), "-y", str(height))
        self._run("-f", "/dev/null", "new-session", "-d", "-s", "t", *size, "-c", folder, shell)
        self.until(_SHELL.strip())

    def _run(self, *words: object) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *map(str, words)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"},
        )
        return done.stdout

    def keys(self, *keys: str) -> None:
        for key in keys:
            self._run("send-keys", "-t", "t", key)
            time.sleep(0.1)

    def command(self, line: str) -> None:
        self._run("send-keys", "-t", "t", "-l", line)
        self.keys("Enter")

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-t", "t", "-x", width, "-y", height)

    @property
    def screen(self) -> str:
        return self._run("capture-pane", "-p", "-t", "t")

    @property
    def on_alternate_screen(self) -> bool:
        return self._run("display", "-p", "-t", "t", "#{alternate_on}").strip() == "1"

    @property
    def takes_mouse(self) -> bool:
        return self._run("display", "-p", "-t", "t", "#{mouse_any_flag}").strip() == "1"

    def until(self, text: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < deadline, self.screen
            time.sleep(0.1)

    def wizard(self) -> int:
        """The process id of the wizard that runs in it."""
        shell = self._run("display", "-p", "-t", "t", "#{pane_pid}").strip()
        children = Path(f"/proc/{shell}/task/{shell}/children").read_text().split()
        return int(children[-1])

    def as_it_was(self) -> None:
        """The shell takes lines again, shows what is typed, and the mouse is let go."""
        deadline = time.monotonic() + 30
        while self.on_alternate_screen or self.takes_mouse:
            assert time.monotonic() < deadline, self.screen
            time.sleep(0.1)
        self.command("echo typed-$((40 + 2))")
        self.until("typed-42")
        self.command("stty -a | grep -o -e '-echo ' -e '-icanon' || echo sane")
        self.until("sane")

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[_Tmux]:
    one = _Tmux(tmp_path, 80, 24)
    yield one
    one.close()
    for record in Registry().list():
        signal_all(processes_of(record.run_id, None), 9)


_WIZARD = f"{sys.executable} -m tunedeck"


def test_the_whole_walk_typed_by_keys_trains(tmux: _Tmux) -> None:
    tmux.command(_WIZARD)
    tmux.until("▶ Demo launch")
    tmux.keys("n")
    tmux.until("LoRA fine-tuning")
    tmux.keys("Enter")
    tmux.until("most used")
    tmux.keys("c", "t", "i", "n", "y", "Enter")
    tmux.until("config tiny")
    tmux.keys("n")
    tmux.until("built in")
    tmux.keys("Enter")
    tmux.until("✓ Ready")
    tmux.keys("s")
    tmux.until("step=1 ", 120)
    tmux.keys("C-q")
    tmux.until("goes on. See it: tunedeck runs logs -f")
    tmux.as_it_was()


def test_keys_sent_before_the_first_picture_walk_to_the_review(tmux: _Tmux) -> None:
    keys = ("n", "Enter", "c", *"tiny", "Enter", "n", "Enter")
    tmux._run("send-keys", "-t", "t", _WIZARD, "Enter", *keys)
    tmux.until("✓ Ready")
    tmux.until("config   tiny")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_of_the_walk_leaves_the_terminal_and_the_draft(
    tmux: _Tmux, number: signal.Signals
) -> None:
    tmux.command(_WIZARD)
    tmux.until("▶ Demo launch")
    tmux.keys("n")
    tmux.until("LoRA fine-tuning")
    tmux.keys("Enter")
    tmux.until("most used")
    assert tmux.on_alternate_screen
    os.kill(tmux.wizard(), number)
    tmux.as_it_was()
    tmux.command(f"{_WIZARD}; echo ended")
    tmux.until("Unfinished")
    tmux.until("✎ config")
    tmux.keys("Down", "Down", "Enter")
    tmux.until("most used")


def test_killed_outright_it_offers_the_draft_when_it_is_opened_again(tmux: _Tmux) -> None:
    tmux.command(_WIZARD)
    tmux.until("▶ Demo launch")
    tmux.keys("n")
    tmux.until("LoRA fine-tuning")
    tmux.keys("Enter")
    tmux.until("most used")
    tmux.keys(":", *"seed=7", "Enter")
    tmux.until("1 changed")
    deadline = time.monotonic() + 30
    while not any("seed=7" in draft.selection.overrides for draft in list_drafts()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(tmux.wizard(), signal.SIGKILL)
    tmux.until("Killed")
    # Nothing could put the terminal back: a person types reset, and loses nothing else.
    tmux.command("reset; echo put-$((40 + 2))-back")  # it takes a second; the prompt is there yet
    tmux.until("put-42-back")
    tmux.command(_WIZARD)
    tmux.until("Unfinished")
    tmux.until("✎ config")
    tmux.keys("Down", "Down", "Enter")
    tmux.until("1 changed")


def test_suspended_and_taken_up_again(tmux: _Tmux) -> None:
    tmux.command(_WIZARD)
    tmux.until("▶ Demo launch")
    tmux.keys("C-z")
    tmux.until("Stopped")
    assert not tmux.on_alternate_screen
    assert not tmux.takes_mouse
    tmux.command("echo in-$((1 + 1))-between")
    tmux.until("in-2-between")
    tmux.command("fg")
    tmux.until("▶ Demo launch")
    tmux.keys("C-q")
    tmux.as_it_was()


def test_a_bug_leaves_the_terminal_as_it_was_and_says_what_it_was(tmux: _Tmux) -> None:
    breaks = (
        "import tunedeck.tui.screens.home as h; "
        "h.HomeScreen.action_new = lambda self: 1 / 0; "
        "from tunedeck.core.cli.main import main; main([])"
    )
    tmux.command(f'{sys.executable} -c "{breaks}"')
    tmux.until("▶ Demo launch")
    tmux.keys("n")
    tmux.until("Tunedeck itself broke (ZeroDivisionError")
    assert "Traceback" not in tmux.screen and "locals" not in tmux.screen
    tmux.command("clear")
    tmux.as_it_was()


def test_it_ends_with_its_terminal(tmux: _Tmux) -> None:
    tmux.command(_WIZARD)
    tmux.until("palette")
    wizard = tmux.wizard()
    tmux.close()
    deadline = time.monotonic() + 60
    while alive(wizard):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_it_is_resized_while_a_log_streams(tmux: _Tmux, tmp_path: Path) -> None:
    script = tmp_path / "streams.py"
    script.write_text(
        "import time\n"
        "for n in range(100000):\n"
        "    print(f'step={n + 1} loss={3 / (n + 1):.4f} streaming', flush=True)\n"
        "    time.sleep(0.002)\n"
    )
    (tmp_path / "env.toml").write_text(
        f'[streams]\nexecutor = "local"\nrun_command = "{sys.executable} {script}"\n'
    )
    tmux.command(
        f"{_WIZARD[: -len(' -m tunedeck')]} -m tunedeck steps run peft/automodel -c tiny -b streams"
    )
    tmux.until("Submitted")
    tmux.command(f"clear; {_WIZARD}")
    tmux.until("● running")
    tmux.keys("Down", "Enter")
    tmux.until("streaming")
    for width, height in ((120, 36), (60, 18), (50, 12), (100, 30), (80, 24)):
        tmux.resize(width, height)
        if (width, height) == (50, 12):
            tmux.until("60 columns and 18 rows")
            continue
        tmux.until("streaming")
        tmux.until("training loss")
        deadline = time.monotonic() + 60
        while "palette" not in tmux.screen.rstrip().splitlines()[-1]:
            assert time.monotonic() < deadline, tmux.screen
            time.sleep(0.1)
    tmux.keys("C-q")
    tmux.as_it_was()
