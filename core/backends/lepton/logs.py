"""What a job on Lepton writes: the logs of all its replicas, as one.

The stream of one replica has neither times nor an offset, and begins anew with each container. The
log API has the nanosecond of each line, of every replica, and still after the job has ended. So it
is the log API that is followed: whatever is cut or late, the next look goes on where the last line
was.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import re
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..base import Handle, LogLine
from ..cloud.errors import Passing
from ..ending import LAST_WORD, code_of_nodes, exit_code_in
from .client import SERVICE, Lepton
from .watch import seconds, status_from

PACE_S, SLOW_PACE_S = 1.0, 5.0
"""Between two looks at a log, while something comes and while nothing does."""

CLOSING_S = 8.0
"""How long the log of a job that has ended may stay silent before it counts as read."""

_PAGE = 5000
_MOST = 10_000
_NS = 1_000_000_000
_WINDOW_NS = 29 * 24 * 3600 * _NS
"""The log API answers for at most 30 days."""

_TAIL = 20
_NODE = re.compile(r"-(\d+)-[a-z0-9]+$")
"""The number of its node in a replica's id, as Kubernetes names the pods of an indexed job."""


async def logs(
    lepton: Lepton, handle: Handle, cursor: str | None, *, wait: bool
) -> AsyncGenerator[LogLine]:
    """Lines of all replicas after a cursor, each once; with `wait`, until the job has ended.

    The first node's lines come as they are, those of the others with their number in front. A
    replica that was started again is its node's.

    Raises:
        Passing: if the service stays out of reach; go on from the last cursor.
    """
    seen = _Seen.read(cursor)
    pause_s, quiet_since, said_last = PACE_S, None, set[int]()
    over, looked_at = False, 0.0
    while True:
        if not over and (said_last or time.monotonic() - looked_at > SLOW_PACE_S):
            looked_at, job = time.monotonic(), await lepton.job(handle.job_id)
            over = job is None or status_from(job).state.terminal
            seen.begin(job)
        replicas = await lepton.replicas(handle.job_id) if seen.started_ns else []
        seen.know(replicas)
        count = 0
        async for node, line in _news(lepton, handle.job_id, seen):
            count += 1
            (said_last.add if line.startswith(LAST_WORD) else said_last.discard)(node)
            yield LogLine(b"[%d] %s" % (node, line) if node else line, seen.text())
        if count:
            pause_s, quiet_since = PACE_S, None
            continue
        if not wait:
            return
        if over:
            quiet_since = quiet_since or time.monotonic()
            waited = time.monotonic() - quiet_since
            if len(said_last) == seen.nodes or not seen.replicas or waited > CLOSING_S:
                return
        await asyncio.sleep(pause_s)
        pause_s = PACE_S if over else min(pause_s * 1.5, SLOW_PACE_S)


@dataclass
class _Seen:
    """How far each replica's log was read.

    Attributes:
        started_ns: when the job was made, by the service's clock; 0 before that is known.
        replicas: id → the nanosecond of its last line, and how many lines of it were seen.
        nodes: how many replicas a try of the job has.
    """

    started_ns: int = 0
    replicas: dict[str, tuple[int, int]] = field(default_factory=dict)
    nodes: int = 1

    @classmethod
    def read(cls, cursor: str | None) -> _Seen:
        if cursor is None:
            return cls()
        data = json.loads(cursor)
        return cls(data["t"], {name: (at, count) for name, at, count in data["r"]})

    def text(self) -> str:
        """The cursor."""
        rows = [[name, at, count] for name, (at, count) in self.replicas.items()]
        return json.dumps({"t": self.started_ns, "r": rows}, separators=(",", ":"))

    def begin(self, job: Mapping[str, Any] | None) -> None:
        """Learn when the job was made, an hour early: clocks differ between machines."""
        if job is None:
            return
        self.nodes = int((job.get("spec") or {}).get("parallelism") or 1)
        if self.started_ns:
            return
        made = seconds((job.get("metadata") or {}).get("created_at"))
        made = made or seconds((job.get("status") or {}).get("creation_time"))
        self.started_ns = int(((made or time.time() - 24 * 3600) - 3600) * _NS)

    def node_of(self, replica: str, place: int) -> int:
        """The number of a replica's node, by its id; else by its place among those of all tries."""
        match = _NODE.search(replica)
        return int(match[1]) if match and int(match[1]) < self.nodes else place % self.nodes

    def know(self, replicas: list[str]) -> None:
        """Add replicas that are new. One that was started again is new, and follows the old."""
        for name in replicas:
            self.replicas.setdefault(name, (self.started_ns, 0))


async def _news(lepton: Lepton, job_id: str, seen: _Seen) -> AsyncGenerator[tuple[int, bytes]]:
    """What the replicas have written since, by time: node and line. `seen` goes with each."""
    pages = [
        [
            (at, seen.node_of(name, place), name, text)
            for at, text in await _page(lepton, job_id, name, seen)
        ]
        for place, name in enumerate(list(seen.replicas))
    ]
    for at, number, name, text in heapq.merge(*pages, key=lambda entry: entry[0]):
        last, count = seen.replicas[name]
        seen.replicas[name] = (at, count + 1 if at == last else 1)
        yield number, text.encode("utf-8", "surrogatepass")


async def _page(lepton: Lepton, job_id: str, replica: str, seen: _Seen) -> list[tuple[int, str]]:
    """The next lines of a replica, in their order."""
    at, count = seen.replicas[replica]
    limit = _PAGE
    while True:
        found = await _ask(
            lepton, job_id, replica=replica, start=at, end=at + _WINDOW_NS, limit=limit
        )
        new, skipped = [], 0
        for moment, text in found:
            if moment == at and skipped < count:
                skipped += 1
            else:
                new.append((moment, text))
        if new or len(found) < limit or limit >= _MOST:
            return new
        limit = _MOST


async def _ask(lepton: Lepton, job_id: str, **options: Any) -> list[tuple[int, str]]:
    """Lines with their nanoseconds, the oldest first."""
    params = {"direction": "forward", "timestamps": True, "job_query_mode": "alive_and_archive"}
    found: list[tuple[int, str]] = await lepton.get(
        "/logs", _lines_of, job=job_id, **{**params, **options}
    )
    return found


def _lines_of(answer: Any) -> list[tuple[int, str]]:
    try:
        lines = [
            (int(value[0]), str(value[1]))
            for stream in answer["data"]["result"] or ()
            for value in stream["values"]
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Passing(f"{SERVICE} answered with what is no log.", acted=False) from error
    return sorted(((at, text.removesuffix("\n")) for at, text in lines), key=lambda line: line[0])


async def exit_code(lepton: Lepton, handle: Handle, job: Mapping[str, Any]) -> int | None:
    """By the last words of the newest try's replicas, one for each node."""
    seen = _Seen()
    seen.begin(job)
    newest: dict[int, tuple[int, int]] = {}
    try:
        for place, name in enumerate(await lepton.replicas(handle.job_id)):
            for at, text in await _last_lines(lepton, handle, name, seen):
                code = exit_code_in([text.encode("utf-8", "surrogatepass")])
                node = seen.node_of(name, place)
                if code is not None and at > newest.get(node, (0, 0))[0]:
                    newest[node] = (at, code)
    except Passing:
        return None
    return code_of_nodes(code for _, code in newest.values())


async def _last_lines(
    lepton: Lepton, handle: Handle, replica: str, seen: _Seen
) -> list[tuple[int, str]]:
    start = seen.started_ns
    options = {"start": start, "end": start + _WINDOW_NS, "limit": _TAIL, "direction": "backward"}
    return await _ask(lepton, handle.job_id, replica=replica, **options)
