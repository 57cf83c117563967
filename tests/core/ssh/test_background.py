"""What the thread of connections says by itself."""

from __future__ import annotations

import asyncio
import gc
import logging

import asyncssh
import pytest

from tunedeck.core.errors import ReachError
from tunedeck.core.ssh.background import over_there


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (asyncssh.ConnectionLost("lost"), False),
        (ReachError("lost"), False),
        (ConnectionResetError("lost"), False),
        (RuntimeError("a bug"), True),
    ],
)
async def test_a_connection_that_is_lost_is_told_by_who_waits_for_it_alone(
    error: Exception, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise error

    async def leave_alone() -> None:
        task = asyncio.ensure_future(fail())
        await asyncio.wait([task])
        del task
        gc.collect()

    async def warn() -> None:  # as a transport does that is written to after its end
        logging.getLogger("asyncio").warning("socket.send() raised exception.")

    await over_there(leave_alone())
    await over_there(warn())
    assert [record.name for record in caplog.records] == ["asyncio"] * told
