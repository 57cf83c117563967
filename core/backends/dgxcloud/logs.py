"""What a workload on Run:ai writes: the logs of all its pods, as one.

Each pod has a stream of its own, which begins with its first line again whenever it is opened. A
pod's first line says which node it is and when it began. So a cursor holds, for each node, which
beginning was read and how many lines after it: a pod that was started again is told from one whose
stream was cut, and a stream that is another pod's is found out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ...errors import TunedeckError
from ..base import Handle, LogLine
from ..cloud.follow import follow
from ..ending import code_of_nodes, exit_code_in
from .client import RunAI
from .job import BEGINNING
from .streams import copy_of, node_count, open_stream, over

_WAITING = 1000
_KEPT = 16 << 20
"""More bytes than Kubernetes keeps of a log at its end."""

_LOOK_AGE_S = 1.0


async def logs(
    runai: RunAI, values: Mapping[str, Any], handle: Handle, cursor: str | None, *, wait: bool
) -> AsyncGenerator[LogLine]:
    """Lines of all pods after a cursor, each once; with `wait`, until the workload has ended.

    The first node's lines come as they are, those of the others with their number in front.
    """
    seen = _read(cursor)
    ended = _Ended(runai, handle)
    nodes = range(await node_count(runai, handle))
    streams = {
        node: _of_node(runai, values, handle, node, seen.get(node), ended, wait=wait)
        for node in nodes
    }
    async with aclosing(_merged(streams)) as entries:
        async for node, entry in entries:
            seen[node] = entry.cursor
            line = entry.line if node == 0 else b"[%d] %s" % (node, entry.line)
            yield LogLine(line, json.dumps(seen, separators=(",", ":")))


async def exit_code(runai: RunAI, handle: Handle) -> int | None:
    """What the last words of a workload that has ended say; None if they cannot be read."""
    ended = _Ended(runai, handle)

    async def of(node: int) -> int | None:
        stream = _of_node(runai, runai.values, handle, node, None, ended, wait=False)
        code = None
        async with aclosing(stream) as entries:
            async for entry in entries:
                said = exit_code_in([entry.line])
                code = code if said is None else said
        return code

    try:
        nodes = range(await node_count(runai, handle))
        return code_of_nodes(await asyncio.gather(*map(of, nodes)))
    except TunedeckError:
        return None


@dataclass(frozen=True, slots=True)
class _Position:
    """How far a pod's log was read: `begun` names the beginning, `count` the lines after it.

    A log that does not say when it began (of an older version's job) has an empty one. `last` tells
    the last line, for a log whose beginning Kubernetes has turned over since.
    """

    begun: str = ""
    count: int = 0
    last: str = ""

    @classmethod
    def read(cls, cursor: str | None) -> _Position:
        begun, count, last = (cursor or ":0:").split(":")
        return cls(begun, int(count), last)

    def after(self, line: bytes) -> _Position:
        """The position after one more line."""
        return _Position(self.begun, self.count + 1, _mark(line))

    def __str__(self) -> str:
        return f"{self.begun}:{self.count}:{self.last}"


def _mark(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()[:12]


_NOT_GIVEN = _Position("another", 0)
"""Where the log of a pod is that the cluster gives another's for."""


class _Ended:
    """Whether the workload has ended; asked for by all of its streams, so looked up once."""

    def __init__(self, runai: RunAI, handle: Handle) -> None:
        self._runai, self._handle = runai, handle
        self._lock = asyncio.Lock()
        self._looked_at = float("-inf")
        self._known = False

    async def __call__(self) -> bool:
        now = asyncio.get_running_loop().time
        async with self._lock:
            if not self._known and now() - self._looked_at > _LOOK_AGE_S:
                self._known = await over(self._runai, self._handle)
                self._looked_at = now()
        return self._known


def _of_node(
    runai: RunAI,
    values: Mapping[str, Any],
    handle: Handle,
    node: int,
    cursor: str | None,
    ended: _Ended,
    *,
    wait: bool,
) -> AsyncGenerator[LogLine]:
    """A node's lines after its own cursor."""
    whole = bool(values.get("launched_from_cluster"))

    def stream(at: str | None) -> AsyncGenerator[LogLine]:
        lines = open_stream(runai, values, handle, node, wait=wait)
        return _after(lines, _Position.read(at), handle, node, whole=whole)

    return follow(stream, cursor, ended, wait=wait)


async def _after(
    lines: AsyncGenerator[bytes], seen: _Position, handle: Handle, node: int, *, whole: bool
) -> AsyncGenerator[LogLine]:
    """The lines of a node's log after a position, the log given from its first line on.

    `whole` tells whether that holds the pods of earlier tries as well, as the copy on the volume
    does, so that all before the position was read; a stream is the newest pod's alone.
    """
    at, behind, turned_over = _Position(), whole and bool(seen.begun), 0
    async with aclosing(lines):
        async for line in lines:
            if match := BEGINNING.fullmatch(line):
                if int(match[1]) != node:
                    if seen != _NOT_GIVEN:
                        yield _not_this_one(handle, node)
                    return
                at = _Position(match[2].decode())
                behind = behind and at.begun != seen.begun
                continue
            if not at.begun and seen.begun and not behind:
                turned_over += len(line)
                if _mark(line) == seen.last or turned_over > _KEPT:
                    at = seen
                continue
            if node > 0 and not at.begun:  # no way to tell whose it is
                return
            at = at.after(line)
            if behind or (at.begun == seen.begun and at.count <= seen.count):
                continue
            yield LogLine(line, str(at))


def _not_this_one(handle: Handle, node: int) -> LogLine:
    """Said once in place of the log of a pod that the cluster does not give out."""
    text = (
        f"tunedeck: the cluster gives out the first node's log alone; see {copy_of(handle, node)}"
    )
    return LogLine(text.encode(), str(_NOT_GIVEN))


async def _merged(
    streams: Mapping[int, AsyncGenerator[LogLine]],
) -> AsyncGenerator[tuple[int, LogLine]]:
    """What several streams give, as it comes, until all have ended or one fails."""
    queue: asyncio.Queue[tuple[int, LogLine | Exception | None]] = asyncio.Queue(_WAITING)

    async def pump(node: int, stream: AsyncGenerator[LogLine]) -> None:
        try:
            async with aclosing(stream) as entries:
                async for entry in entries:
                    await queue.put((node, entry))
            await queue.put((node, None))
        except Exception as error:  # noqa: BLE001 - raised by whoever reads the queue
            await queue.put((node, error))

    tasks = [asyncio.create_task(pump(node, stream)) for node, stream in streams.items()]
    try:
        left = len(tasks)
        while left:
            node, entry = await queue.get()
            if isinstance(entry, Exception):
                raise entry
            if entry is None:
                left -= 1
            else:
                yield node, entry
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _read(cursor: str | None) -> dict[int, str]:
    """Node → its own cursor; a mere number is an older version's, of the first node."""
    if cursor is None:
        return {}
    data = json.loads(cursor)
    if isinstance(data, int):
        return {0: f":{data}:"}
    return {int(node): at for node, at in data.items()}
