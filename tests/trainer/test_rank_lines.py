"""The lines of several ranks can be told apart in one log."""

from __future__ import annotations

import io
import sys

import pytest

from tunedeck.core.logs.log_filter import LogFilter
from tunedeck.trainer.rank_lines import MarkedStream, mark_lines


def _said(*texts: str, rank: int = 3) -> str:
    file = io.BytesIO()
    stream = MarkedStream(io.TextIOWrapper(file, encoding="utf-8"), rank)
    for text in texts:
        assert stream.write(text) == len(text)
    stream.flush()
    return file.getvalue().decode()


def test_every_line_is_marked_once_however_it_is_written_in_pieces() -> None:
    said = _said("loading", " weights\n", "a\n\nb", "\n", "[rank3]: Traceback\n")
    lines = ["loading weights", "a", "", "b", "Traceback"]
    assert said == "".join(f"[rank3]: {line}\n" if line else "\n" for line in lines)


def test_what_is_marked_is_found_by_the_filter_of_its_rank() -> None:
    line = _said("UserWarning: slow\n").encode().rstrip()
    assert LogFilter(rank=3).chooser()(line)
    assert not LogFilter(rank=0).chooser()(line)


@pytest.mark.parametrize(
    ("rank", "first", "later"),
    [("0", "[rank0]: process ", "hello"), ("1", "[rank1]: process ", "[rank1]: hello")],
)
def test_each_of_several_ranks_says_who_it_is_and_the_first_stays_bare(
    rank: str,
    first: str,
    later: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    out, err = sys.stdout, sys.stderr
    try:
        mark_lines()
        sys.stdout.write("hello\n")
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = out, err
    printed = capfd.readouterr()
    assert printed.err.startswith(first)
    assert printed.out == f"{later}\n"


def test_one_process_alone_says_nothing_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    before = sys.stdout
    mark_lines()
    assert sys.stdout is before
    assert capsys.readouterr() == ("", "")
