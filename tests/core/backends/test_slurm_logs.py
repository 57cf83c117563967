"""Following a log that is cut, replaced and rotated while it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import pytest

from tunedeck.core.backends.base import LogLine
from tunedeck.core.backends.slurm.logs import follow_log, lines_of, read_log
from tunedeck.core.ssh import Machine
from tunedeck.core.ssh.here import ThisMachine
from tunedeck.core.states import RunState, Status

HERE = cast("Machine", ThisMachine())


class Follower:
    """Follows a log, and tells what it has read so far."""

    def __init__(self, log: Path, offset: int = 0) -> None:
        self.state = RunState.RUNNING
        self.found: list[LogLine] = []
        self._work = asyncio.create_task(self._follow(log, offset))

    async def _follow(self, log: Path, offset: int) -> None:
        async with aclosing(lines_of(follow_log(HERE, str(log), offset, self._status))) as lines:
            async for line in lines:
                self.found.append(line)

    async def _status(self) -> Status:
        return Status(self.state)

    @property
    def lines(self) -> list[str]:
        return [entry.line.decode() for entry in self.found]

    async def until(self, right: Callable[[], bool]) -> None:
        while not right():
            await asyncio.sleep(0.01)

    async def end(self) -> list[str]:
        self.state = RunState.SUCCEEDED
        await self._work
        return self.lines


def words(start: int, stop: int) -> str:
    return "".join(f"line {number}\n" for number in range(start, stop))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "tunedeck.core.backends.slurm.logs"
    monkeypatch.setattr(f"{module}._QUICK_S", 0.01)
    monkeypatch.setattr(f"{module}._SLOW_S", 0.01)
    monkeypatch.setattr(f"{module}._PACE_S", 0.05)


async def test_a_log_copied_away_and_truncated_loses_nothing(tmp_path: Path) -> None:
    log, rotated = tmp_path / "log.txt", tmp_path / "log.txt.1"
    log.write_text(words(0, 50))
    follower = Follower(log)
    await follower.until(lambda: len(follower.lines) == 50)
    # As logrotate's copytruncate does it, with more written in between than was read.
    rotated.write_text(words(0, 60) + "line ")
    log.write_text("60\n" + words(61, 70))
    await follower.until(lambda: len(follower.lines) == 70)
    assert await follower.end() == words(0, 70).splitlines()


async def test_a_log_that_is_replaced_by_a_longer_one_goes_on_with_that(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(words(0, 5))
    follower = Follower(log)
    await follower.until(lambda: len(follower.lines) == 5)
    new = tmp_path / "new"
    new.write_text(words(100, 200))
    new.replace(log)
    await follower.until(lambda: len(follower.lines) == 105)
    assert await follower.end() == (words(0, 5) + words(100, 200)).splitlines()


async def test_a_log_that_is_gone_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(words(0, 5))
    follower = Follower(log)
    await follower.until(lambda: len(follower.lines) == 5)
    log.rename(tmp_path / "elsewhere")
    await asyncio.sleep(0.1)
    (tmp_path / "elsewhere").rename(log)
    with log.open("a") as out:
        out.write(words(5, 8))
    await follower.until(lambda: len(follower.lines) == 8)
    assert await follower.end() == words(0, 8).splitlines()


async def test_from_any_cursor_on_the_rest_is_read_once(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(words(0, 30) + "and no newline")
    follower = Follower(log)
    whole = await follower.end()
    assert whole == [*words(0, 30).splitlines(), "and no newline"]
    for number in (0, 7, 29):
        rest = await Follower(log, int(follower.found[number].cursor)).end()
        assert rest == whole[number + 1 :]


async def test_a_cursor_beyond_a_log_that_was_truncated_starts_anew(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(words(0, 3))
    assert await Follower(log, 10_000).end() == words(0, 3).splitlines()


async def test_reading_without_following_gives_whole_lines_alone(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("one\ntwo\nthr")

    async def collect(lines: AsyncGenerator[LogLine]) -> list[Any]:
        return [(entry.line, entry.cursor) async for entry in lines]

    found = await collect(lines_of(read_log(HERE, str(log), 0)))
    assert found == [(b"one", "4"), (b"two", "8")]
    assert await collect(lines_of(read_log(HERE, str(log), 4))) == [(b"two", "8")]
