from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.core.logs.spool_reader import SpoolReader


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def test_a_log_that_is_not_there_is_empty(log: Path) -> None:
    with SpoolReader(log) as reader:
        assert len(reader) == 0
        assert reader.lines(0, 10) == []
        log.write_bytes(b"a\n")
        reader.refresh()
        assert reader.lines(0, 10) == ["a"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_agrees_with_reading_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("spool") / "log"
    pieces = data.draw(
        st.lists(st.sampled_from([b"a", b"\n", b"line\n", b"x" * 70_000, b"\n\n", b"y" * 65_535]))
    )
    with path.open("wb") as file, SpoolReader(path) as reader:
        for piece in pieces:
            file.write(piece)
            file.flush()
            reader.refresh()
    content = b"".join(pieces)
    expected = content.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    with SpoolReader(path) as reader:
        assert [reader.raw(number) for number in range(len(reader))] == expected


def test_growth_in_the_middle_of_a_line(log: Path) -> None:
    log.write_bytes(b"one\ntw")
    with SpoolReader(log) as reader:
        assert reader.lines(0, 9) == ["one", "tw"]
        with log.open("ab") as file:
            file.write(b"o\nthree\n")
        assert reader.refresh() is False
        assert reader.lines(0, 9) == ["one", "two", "three"]


@pytest.mark.parametrize("content", [b"", b"new\n", b"new\n" * 100])
@pytest.mark.parametrize("how", ["truncated", "replaced"])
def test_a_log_that_is_truncated_or_replaced(log: Path, content: bytes, how: str) -> None:
    log.write_bytes(b"old line\n" * 10)
    with SpoolReader(log) as reader:
        if how == "replaced":
            other = log.with_name("other")
            other.write_bytes(content)
            other.replace(log)
        else:
            log.write_bytes(content)
        assert reader.refresh() is True
        assert len(reader) == content.count(b"\n")
        assert set(reader.lines(0, 1000)) <= {"new"}


def test_a_log_that_is_removed(log: Path) -> None:
    log.write_bytes(b"a\n")
    with SpoolReader(log) as reader:
        log.unlink()
        assert reader.refresh() is True
        assert len(reader) == 0


def test_what_is_shown_is_safe(log: Path) -> None:
    log.write_bytes(b"\x1b[2J10%\r 50%\rdone\r\n\xff\xfe bad\n" + b"z" * 1_000_000 + b"\n")
    with SpoolReader(log) as reader:
        first, second, third = reader.lines(0, 3)
    assert first == "done"
    assert second == "\ufffd\ufffd bad"
    assert len(third) == 4096
    assert third.endswith("…")


def test_the_offset_of_the_last_lines(log: Path) -> None:
    log.write_bytes(b"one\ntwo\nthree\nfo")
    with SpoolReader(log) as reader:
        assert log.read_bytes()[reader.tail_offset(2) :] == b"three\nfo"
        assert reader.tail_offset(99) == 0
        assert log.read_bytes()[reader.tail_offset(0) :] == b""


def test_a_million_lines_take_little_memory_and_any_of_them_can_be_shown(log: Path) -> None:
    chance = random.Random(0)
    lengths = [chance.randrange(1, 40) for _ in range(1000)]
    block = b"".join(b"x" * length + b"\n" for length in lengths)
    log.write_bytes(block * 1000)
    with SpoolReader(log) as reader:
        assert len(reader) == 1_000_000
        for number in (0, 1, 123_456, 999_999):
            assert len(reader.raw(number)) == lengths[number % 1000]
        assert reader._newlines.buffer_info()[1] * 8 < 10_000  # one number a block
        assert log.stat().st_size == len(block) * 1000


def test_a_search_finds_the_nearest_line_in_either_direction(log: Path) -> None:
    lines = [b"ok"] * 3000
    lines[700] = lines[2100] = b"an Error here"
    log.write_bytes(b"\n".join(lines) + b"\n")
    wanted = re.compile(rb"(?i)error")
    with SpoolReader(log) as reader:
        assert reader.find(wanted, 0) == 700
        assert reader.find(wanted, 700) == 700
        assert reader.find(wanted, 701) == 2100
        assert reader.find(wanted, 2101) is None
        assert reader.find(wanted, 2999, backwards=True) == 2100
        assert reader.find(wanted, 2099, backwards=True) == 700
        assert reader.find(wanted, 699, backwards=True) is None
        assert reader.find(wanted, 0, stopped=lambda: True) is None


def test_a_log_that_is_cut_between_two_looks_can_still_be_shown(log: Path) -> None:
    log.write_bytes(b"line\n" * 50)
    with SpoolReader(log) as reader:
        log.write_bytes(b"new\n")
        assert len(reader.lines(30, 10)) == 10
        assert reader.refresh() is True
        assert reader.lines(0, 10) == ["new"]
