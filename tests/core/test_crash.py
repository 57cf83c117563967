"""What a person sees when Tunedeck itself breaks, and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core import locations
from tunedeck.core.cli import main as command_line
from tunedeck.core.crash import crash_report


def test_a_bug_is_told_in_words_and_kept_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(*_: object, **__: object) -> None:
        typed = "typed by a person"
        raise KeyError(f"no {len(typed)} \x1b[31m")

    monkeypatch.setattr(command_line.cli, "main", breaks)
    assert command_line.run(["runs", "list"]) == 1
    told = capsys.readouterr().err
    assert "Tunedeck itself broke (KeyError: 'no 17" in told
    assert "Traceback" not in told and "\x1b[31m" not in told
    (file,) = (locations.state_dir() / "crashes").iterdir()
    assert file.name in told.replace("\n", "").replace(" ", "")
    kept = file.read_text()
    assert "in breaks" in kept and "typed by a person" not in kept.partition("raise")[2]
    assert file.stat().st_mode & 0o077 == 0


def test_a_secret_in_a_crash_is_masked() -> None:
    try:
        raise RuntimeError('HF_TOKEN = "hf_abcdefghijklmnopqrstuvwxyz0123456789"')
    except RuntimeError as error:
        report = crash_report(error)
    (file,) = (locations.state_dir() / "crashes").iterdir()
    for text in (str(report), file.read_text().partition("RuntimeError: ")[2]):
        assert "hf_abc" not in text


def test_a_crash_that_cannot_be_kept_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    monkeypatch.setattr(locations, "state_dir", lambda: blocked)
    report = crash_report(ValueError("x"))
    assert "ValueError: x" in report.message and "could not be kept" in report.fix
