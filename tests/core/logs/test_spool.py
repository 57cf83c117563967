from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest

from tunedeck.core.backends.base import Backend, Handle, LogLine
from tunedeck.core.errors import AuthenticationError, ReachError
from tunedeck.core.logs.spool import bring_home, catch_up, load_state

LINES = [f"line {number} \r\x1b[0m".encode() + b"\xff" for number in range(500)]
WHOLE = b"".join(line + b"\n" for line in LINES)


class Elsewhere:
    """A log elsewhere whose connection breaks after some lines; the cursor is a line number."""

    def __init__(self, breaks: list[int] | None = None, there: int = len(LINES)) -> None:
        self.breaks = breaks or []
        self.there = there
        self.asked: list[str | None] = []
        self.given = 0

    async def logs(
        self, handle: Handle, cursor: str | None, *, follow: bool
    ) -> AsyncGenerator[LogLine]:
        self.asked.append(cursor)
        limit = self.breaks.pop(0) if self.breaks else None
        for count, number in enumerate(range(int(cursor or 0), self.there)):
            if count == limit:
                raise ReachError("The connection was lost.")
            self.given += 1
            yield LogLine(LINES[number], str(number + 1))
            await asyncio.sleep(0)

    @property
    def backend(self) -> Backend:
        return cast(Backend, self)


HANDLE = Handle("r1", "1", {})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "run" / "log.txt"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunedeck.core.logs.spool._FIRST_RETRY_S", 0.01)
    monkeypatch.setattr("tunedeck.core.logs.spool._LOCK_LOOK_S", 0.01)


def home(there: Elsewhere, log: Path) -> list[str]:
    told: list[str] = []
    asyncio.run(asyncio.wait_for(bring_home(HANDLE, there.backend, log, told.append), 60))
    return told


def test_a_log_comes_home_byte_for_byte(log: Path) -> None:
    assert home(Elsewhere(), log) == []
    assert log.read_bytes() == WHOLE
    assert load_state(log).complete


def test_each_line_comes_once_over_any_number_of_lost_connections(log: Path) -> None:
    there = Elsewhere(breaks=[100, 0, 1, 250])
    told = home(there, log)
    assert log.read_bytes() == WHOLE
    assert len(told) == 4
    assert there.asked == [None, "100", "100", "101", "351"]


def test_a_log_that_is_home_is_not_asked_for_again(log: Path) -> None:
    home(Elsewhere(), log)
    again = Elsewhere()
    home(again, log)
    assert again.asked == []


def test_a_backend_that_refuses_ends_it(log: Path) -> None:
    class Refusing(Elsewhere):
        async def logs(
            self, handle: Handle, cursor: str | None, *, follow: bool
        ) -> AsyncGenerator[LogLine]:
            raise AuthenticationError("The token is no longer valid.")
            yield

    with pytest.raises(AuthenticationError):
        home(Refusing(), log)


def test_what_was_written_after_the_cursor_was_saved_is_not_doubled(log: Path) -> None:
    home(Elsewhere(breaks=[], there=200), log)
    state = log.with_suffix(".cursor")
    state.write_text(state.read_text().replace('"complete": true', '"complete": false'))
    before = state.read_text()
    home(Elsewhere(there=300), log)
    state.write_text(before)  # as if the process had been killed before it could save again
    size = log.stat().st_size
    sizes = []

    async def watched() -> None:
        task = asyncio.create_task(bring_home(HANDLE, Elsewhere().backend, log, print))
        while not task.done():
            sizes.append(log.stat().st_size)
            await asyncio.sleep(0)
        await task

    asyncio.run(watched())
    assert log.read_bytes() == WHOLE
    assert min(sizes) >= size  # or a reader would take it for another log


def test_two_at_once_copy_it_once(log: Path) -> None:
    first, second = Elsewhere(breaks=[50, 60]), Elsewhere()

    async def both() -> None:
        await asyncio.gather(
            bring_home(HANDLE, first.backend, log, print),
            bring_home(HANDLE, second.backend, log, print),
        )

    asyncio.run(asyncio.wait_for(both(), 60))
    assert log.read_bytes() == WHOLE
    assert second.asked == []


def test_another_takes_over_when_the_copying_process_is_killed(log: Path) -> None:
    script = f"""
import asyncio, pathlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_spool as t
class Slow(t.Elsewhere):
    async def logs(self, handle, cursor, *, follow):
        async for line in super().logs(handle, cursor, follow=follow):
            yield line
            await asyncio.sleep(0.005)
asyncio.run(t.bring_home(t.HANDLE, Slow(), pathlib.Path({str(log)!r}), print))
"""
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        while not log.exists() or log.stat().st_size < 2000:
            time.sleep(0.01)
        process.kill()
    home(Elsewhere(), log)
    assert log.read_bytes() == WHOLE


def test_catching_up_takes_what_there_is_now(log: Path) -> None:
    asyncio.run(catch_up(HANDLE, Elsewhere(there=10).backend, log))
    assert log.read_bytes() == b"".join(line + b"\n" for line in LINES[:10])
    assert not load_state(log).complete
    home(Elsewhere(), log)
    assert log.read_bytes() == WHOLE


def test_a_full_disk_is_an_error_and_no_loss(log: Path) -> None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(WHOLE) // 2, limit[1]))
    try:
        with pytest.raises(OSError):
            home(Elsewhere(), log)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    home(Elsewhere(), log)
    assert log.read_bytes() == WHOLE
