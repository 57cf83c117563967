from __future__ import annotations

import re
from pathlib import Path

import pytest
from textual.app import App, ComposeResult

from tests.tui.conftest import shown, until
from tunedeck.core.logs.spool_reader import SpoolReader
from tunedeck.tui.widgets.log_view import LogView


class _LogApp(App[None]):
    def __init__(self, log: Path) -> None:
        super().__init__()
        self._file = log
        self.asked: list[LogView.Wanted] = []

    def on_log_view_wanted(self, wanted: LogView.Wanted) -> None:
        self.asked.append(wanted)

    def compose(self) -> ComposeResult:
        yield LogView(id="log")

    def on_mount(self) -> None:
        reader = SpoolReader(self._file)
        reader.refresh()
        self.query_one(LogView).attach(reader)
        self.query_one(LogView).focus()
        self.set_interval(0.05, self.query_one(LogView).refresh_log)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


async def test_it_opens_at_the_end_and_follows(log: Path) -> None:
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    async with _LogApp(log).run_test(size=(60, 18)) as pilot:
        await until(pilot, lambda: "line 99999" in shown(pilot))
        with log.open("a") as file:
            file.write("newest\n")
        await until(pilot, lambda: "newest" in shown(pilot))


async def test_the_bar_stands_where_the_lines_do_and_an_empty_log_says_so(log: Path) -> None:
    async with _LogApp(log).run_test(size=(60, 18)) as pilot:
        view = pilot.app.query_one(LogView)
        view.empty = "No line so far."
        await until(pilot, lambda: "No line so far." in shown(pilot))
        log.write_text("".join(f"line {number}\n" for number in range(100)))
        await until(pilot, lambda: "line 99" in shown(pilot))
        await until(pilot, lambda: view.vertical_scrollbar.position == view.max_scroll_y > 0)
        assert "No line" not in shown(pilot)


async def test_scrolling_up_stops_following_and_end_goes_on(log: Path) -> None:
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    async with _LogApp(log).run_test(size=(60, 18)) as pilot:
        view = pilot.app.query_one(LogView)
        await until(pilot, lambda: "line 99" in shown(pilot))
        await pilot.press("pageup")
        await until(pilot, lambda: not view.following)
        with log.open("a") as file:
            file.write("newest\n")
        await pilot.pause(0.3)
        assert "newest" not in shown(pilot)
        await pilot.press("end")
        await until(pilot, lambda: "newest" in shown(pilot))


async def test_hostile_text_is_shown_as_text(log: Path) -> None:
    hostile = b"\x1b]0;owned\x07title\n\x1b[2Jcleared\n[bold]x[/red]\n\xff\xfe bytes\n"
    wide = "漢字" * 100 + "\n\u202eevil\u202c\n" + "x" * 1_000_000 + "\nlast\n"
    log.write_bytes(hostile + wide.encode())
    async with _LogApp(log).run_test(size=(60, 18)) as pilot:
        await until(pilot, lambda: "last" in shown(pilot))
        text = shown(pilot)
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "[bold]x[/red]" in text
        assert "title" in text
        await pilot.press("w")
        await until(pilot, lambda: pilot.app.query_one(LogView).wrap)
        await until(pilot, lambda: "last" in shown(pilot))


async def test_wrapping_shows_the_whole_of_a_long_line(log: Path) -> None:
    log.write_text("start " + "word " * 40 + "finish\n")
    async with _LogApp(log).run_test(size=(60, 18)) as pilot:
        await until(pilot, lambda: "start" in shown(pilot))
        assert "finish" not in shown(pilot)
        await pilot.press("w")
        await until(pilot, lambda: "finish" in shown(pilot))


async def test_a_log_that_is_replaced_is_shown_anew(log: Path) -> None:
    log.write_text("old\n" * 50)
    async with _LogApp(log).run_test(size=(60, 18)) as pilot:
        await until(pilot, lambda: "old" in shown(pilot))
        log.write_text("fresh\n")
        await until(pilot, lambda: "fresh" in shown(pilot) and "old" not in shown(pilot))


async def test_a_search_asks_from_where_one_is(log: Path) -> None:
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    app = _LogApp(log)
    async with app.run_test(size=(60, 18)) as pilot:
        view = app.query_one(LogView)
        await until(pilot, lambda: "line 99" in shown(pilot))
        asked = app.asked
        view.search(re.compile(b"7"), backwards=True)
        view.go_to(50)
        view.search(re.compile(b"7"))
        await until(pilot, lambda: len(asked) == 2)
        assert [(one.start, one.backwards) for one in asked] == [(99, True), (51, False)]


async def test_a_line_that_is_gone_to_is_seen(log: Path) -> None:
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    async with _LogApp(log).run_test(size=(60, 18)) as pilot:
        await until(pilot, lambda: "line 9999" in shown(pilot))
        pilot.app.query_one(LogView).go_to(4321)
        await until(pilot, lambda: "line 4321" in shown(pilot))
