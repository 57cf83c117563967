"""Which lines of a run's log are shown: those of a node, of a rank, or those that are serious."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ...core.backends.base import KeepsNodeLogs
from ...core.logs.log_filter import LogFilter
from ...core.runs.watch import backend_of

if TYPE_CHECKING:
    from ...core.runs.record import RunRecord


@dataclass(frozen=True)
class Lines:
    """A log and a filter on it.

    Attributes:
        wanted: which of its lines.
        node: whose log; that of the first node is the run's.
    """

    wanted: LogFilter = field(default_factory=LogFilter)
    node: int = 0

    def __str__(self) -> str:
        """In words: `node 1, rank 9, errors`."""
        if not self.node:
            return str(self.wanted)
        return f"node {self.node}, {self.wanted}"

    def options(self) -> list[str]:
        """What `tunedeck runs logs` takes for the same."""
        return [*(["--node", str(self.node)] if self.node else []), *self.wanted.options()]


def offered(record: RunRecord) -> Iterator[Lines]:
    """All that can be chosen of a run, what one looks at most first."""
    launch = record.plan["launch"]
    own_logs = launch["nodes"] > 1 and isinstance(backend_of(record), KeepsNodeLogs)
    nodes = range(launch["nodes"] if own_logs else 1)
    serious = (LogFilter(level="error"), LogFilter(level="warning"))
    for node in nodes:
        yield Lines(node=node)
        yield from (Lines(wanted, node) for wanted in serious)
    if launch["world_size"] == 1:
        return
    ranks = [
        Lines(LogFilter(rank), rank // launch["nproc_per_node"] if own_logs else 0)
        for rank in range(launch["world_size"])
    ]
    yield from ranks
    yield from (replace(one, wanted=replace(one.wanted, level="error")) for one in ranks)
