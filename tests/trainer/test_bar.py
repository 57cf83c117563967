from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tunedeck.core.schema import TrainConfig
from tunedeck.trainer.checkpoints.progress import Progress
from tunedeck.trainer.reporting.bar import progress_bar

from .helpers import losses

Configure = Callable[..., TrainConfig]


class Screen:
    """A stream that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def a_screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """stderr as a terminal; to be called in the test itself, as pytest sets stderr before it."""
    monkeypatch.setenv("TERM", "xterm")
    shown = Screen()
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def test_a_terminal_shows_where_the_run_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = a_screen(monkeypatch)
    progress = Progress(step=2, loss=1.25)
    with progress_bar(progress, 8):
        progress.step, progress.loss = 7, 0.5
    assert "2/8" in screen.text
    assert "7/8" in screen.text
    assert "loss 0.5000" in screen.text


def test_other_ranks_and_logs_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = a_screen(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    with progress_bar(Progress(), 8):
        pass
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(screen, "isatty", lambda: False)
    with progress_bar(Progress(), 8):
        pass
    assert screen.text == ""


@pytest.mark.slow
def test_a_run_on_a_terminal_has_a_bar_and_whole_metric_lines(
    configure: Configure, tmp_path: Path
) -> None:
    file = tmp_path / "resolved.yaml"
    file.write_text(yaml.safe_dump(json.loads(configure().model_dump_json())))
    master, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tunedeck.trainer", "sft", "--config", str(file)],
        env={**os.environ, "TUNEDECK_RUN_DIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    ) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # Linux ends a terminal that nobody holds so
                break
            if not data:
                break
            shown += data
        assert process.stdout is not None
        printed = process.stdout.read()
        assert process.wait(timeout=60) == 0
    os.close(master)
    assert b"4/4" in shown
    assert len(losses(printed)) == 4
    assert "\x1b" not in printed
