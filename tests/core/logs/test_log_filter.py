from __future__ import annotations

import re
from pathlib import Path

import pytest

from tunedeck.core.logs.filtered_reader import FilteredReader
from tunedeck.core.logs.log_filter import LogFilter
from tunedeck.core.logs.spool_reader import SpoolReader


@pytest.mark.parametrize(
    "line",
    [
        b"[rank3]: RuntimeError: boom",
        b"[default3]: step=1 loss=2.0",
        b"3: srun labels lines like this",
        b"2026-11-21 10:00:00 rank 3: hello",
        b"INFO rank=3 hello",
    ],
)
def test_a_rank_is_known_by_what_launchers_put_in_front(line: bytes) -> None:
    assert LogFilter(rank=3).chooser()(line)
    assert not LogFilter(rank=1).chooser()(line)
    assert not LogFilter(rank=33).chooser()(line)


def test_a_rank_is_no_number_that_stands_elsewhere() -> None:
    wanted = LogFilter(rank=3).chooser()
    assert not wanted(b"step=3 loss=2.0")
    assert not wanted(b"[rank13]: hello")
    assert not wanted(b"epoch 3: starting")


def test_what_no_rank_marks_is_the_first_rank_s() -> None:
    first = LogFilter(rank=0).chooser()
    assert first(b"step=3 loss=2.0")
    assert first(b"[rank0]: process 12 on a")
    assert not first(b"[rank1]: UserWarning: slow")
    assert not first(b"tunedeck: rank 1 ended first, with 1")
    assert not first(b"12: srun labels lines like this")


def test_errors_come_with_their_traceback_and_nothing_else() -> None:
    log = [
        b"step=1 loss=2.0",
        b"Traceback (most recent call last):",
        b'  File "x.py", line 1, in <module>',
        b"    raise ValueError('no')",
        b"ValueError: no",
        b"  an indented line right below it",
        b"step=2 grad_error=0.1 terror=1",
        b"  an indented line below a harmless one",
        b"UserWarning: careful",
        b"2026 WARNING slow disk",
        b"torch.OutOfMemoryError: CUDA out of memory.",
    ]
    errors = LogFilter(level="error").chooser()
    assert [n for n, line in enumerate(log) if errors(line)] == [1, 2, 3, 4, 5, 10]
    warnings = LogFilter(level="warning").chooser()
    assert [n for n, line in enumerate(log) if warnings(line)] == [1, 2, 3, 4, 5, 8, 9, 10]


def test_rank_and_level_together_want_both() -> None:
    wanted = LogFilter(rank=1, level="error").chooser()
    assert wanted(b"[rank1]: ValueError: x")
    assert wanted(b"[rank1]:     the frame")
    assert not wanted(b"[rank0]: ValueError: x")
    assert not wanted(b"[rank1]: fine")


def test_a_filter_says_what_it_is_and_how_to_type_it() -> None:
    assert not LogFilter()
    assert str(LogFilter(2, "error")) == "rank 2, errors"
    assert LogFilter(2, "error").options() == ["--rank", "2", "--level", "error"]


def test_wanted_lines_are_numbered_by_themselves_and_found_again(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_bytes(
        b"".join(b"[rank%d]: line %d\n" % (n % 4, n) for n in range(20_000))
        + b"[rank2]: unfinished"
    )
    with SpoolReader(log) as reader:
        chosen = FilteredReader(reader, LogFilter(rank=2))
        assert not chosen.catch_up(limit=5000)
        assert chosen.catch_up()
        assert len(chosen) == 5000
        assert chosen.lines(4999, 5) == ["[rank2]: line 19998"]
        assert chosen.number(1) == 6
        assert chosen.index_of(7) == 2
        assert chosen.find(re.compile(b"19994"), 0) == 4998
        assert chosen.catch_up(ended=True)
        assert chosen.lines(5000, 1) == ["[rank2]: unfinished"]


def test_a_log_that_grows_and_one_that_is_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("fine\nERROR one\n")
    with SpoolReader(log) as reader:
        chosen = FilteredReader(reader, LogFilter(level="error"))
        chosen.catch_up()
        with log.open("a") as file:
            file.write("ERROR two\n")
        assert not chosen.refresh()
        chosen.catch_up()
        assert chosen.lines(0, 9) == ["ERROR one", "ERROR two"]
        log.write_text("ERROR new\n")
        assert chosen.refresh()
        chosen.catch_up()
        assert chosen.lines(0, 9) == ["ERROR new"]
