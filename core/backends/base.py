"""The protocol of a backend, and the table of those there are."""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from ..errors import UsageError
from ..findings import Finding
from ..plan import Plan
from ..states import Status
from ..submission import Submission
from ..text import did_you_mean


@dataclass(frozen=True, slots=True)
class Handle:
    """How a backend finds a job again: its own id, and what else it wrote down at submission.

    Attributes:
        run_id: Tunedeck's id.
        job_id: the backend's.
        data: plain JSON data that only the backend reads (paths, host, kind). No secrets.
    """

    run_id: str
    job_id: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log line without its newline, and the cursor from which the next one starts.

    A cursor is opaque to all but its backend. `b"..."` is kept as it came, byte for byte. `whole`
    is false for what a log ends with where no newline follows.
    """

    line: bytes
    cursor: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Capabilities:
    """How a backend is to be watched. What only some can do is a protocol of its own, below.

    Attributes:
        remote: whether jobs and their logs are elsewhere, so that logs have to be brought home.
        poll_s: seconds between two looks at a job that is being watched.
        asks_together: whether all jobs that are looked at in one moment are one question.
    """

    remote: bool = True
    poll_s: float = 10.0
    asks_together: bool = False


class Backend(Protocol):
    """One place a run can be sent to.

    A new one is a module and an entry in `EXECUTORS`, beside the model of its profiles in
    `env.models`.
    """

    name: str
    capabilities: Capabilities

    async def preflight(self, plan: Plan) -> list[Finding]:
        """What the backend itself can say of the plan. May use the network; changes nothing."""
        ...

    def render(self, plan: Plan) -> Submission:
        """The exact bytes for a plan. Pure: no network, no clock, nothing written."""
        ...

    async def submit(self, submission: Submission) -> Handle:
        """Send it. Idempotent by run id: sent twice, it is one job."""
        ...

    async def find(self, run_id: str, run_dir: Path) -> Handle | None:
        """The job of a run whose submission was cut off before its answer; None if there is none.

        `run_dir` is the run's folder on this machine.
        """
        ...

    async def status(self, handle: Handle) -> Status:
        """The job's state now."""
        ...

    def logs(self, handle: Handle, cursor: str | None, *, follow: bool) -> AsyncGenerator[LogLine]:
        """Lines after `cursor` (None: from the first), each once. With `follow`, until it ends."""
        ...

    async def cancel(self, handle: Handle) -> Status:
        """Stop the job and return once the backend confirms a terminal state."""
        ...


@runtime_checkable
class TellsInventory(Protocol):
    """A backend that can say what there is to run on."""

    async def inventory(self, profile_values: dict[str, Any]) -> dict[str, Any]:
        """GPUs, partitions, flavors and queue as the backend has them now."""
        ...


@runtime_checkable
class NamesPrices(Protocol):
    """A backend whose service names prices."""

    async def price(self, plan: Plan) -> dict[str, Any] | None:
        """What the plan may cost at most; None for what the service has no price of."""
        ...


@runtime_checkable
class Remarks(Protocol):
    """A backend that has something to say of a plan without asking its service."""

    def remarks(self, plan: Plan) -> list[Finding]:
        """Findings that every preview shows. Uses no network."""
        ...


@runtime_checkable
class Settles(Protocol):
    """A backend whose payload has ids in it that only its service knows."""

    async def settle(self, submission: Submission) -> Submission:
        """The submission with those ids in the place of the names that stand for them."""
        ...


@runtime_checkable
class ReadsBlocks(Protocol):
    """A backend that gives a log out in blocks of whole lines, for those who copy it."""

    def log_blocks(
        self, handle: Handle, cursor: str | None, *, follow: bool
    ) -> AsyncGenerator[LogLine]:
        """As `logs`, but the lines that came together are one, joined by newlines."""
        ...


@runtime_checkable
class TellsUploads(Protocol):
    """A backend that may have much to send before it starts a job, and says how far it is."""

    def tell_uploads(self, on_progress: Callable[[str, int, int], None]) -> None:
        """Have told, from now on, the file that is sent, the bytes of all that are, and of all."""
        ...


@runtime_checkable
class KeepsNodeLogs(Protocol):
    """A backend whose nodes have logs of their own beside the run's, which is the first node's."""

    def of_node(self, handle: Handle, node: int) -> Handle:
        """The job by which `logs` gives out the log of a node, counted from 0."""
        ...


@runtime_checkable
class Forgets(Protocol):
    """A backend whose service keeps jobs that have ended until it is told to remove them."""

    async def forget(self, handle: Handle) -> None:
        """Remove a job and its history at the service. One that is gone is no error."""
        ...


EXECUTORS = {
    "local": "local.backend:LocalBackend",
    "slurm": "slurm.backend:SlurmBackend",
    "hf_jobs": "hf.backend:HFJobsBackend",
    "lepton": "lepton.backend:LeptonBackend",
    "dgxcloud": "dgxcloud.backend:DGXCloudBackend",
}
"""Executor name → `module:class` below this package; a backend is imported when it is used."""


def load_backend(executor: str, profile_values: dict[str, Any]) -> Backend:
    """The backend for an executor, made from the resolved values of a profile.

    Raises:
        UsageError: if there is no backend of that name.
    """
    target = EXECUTORS.get(executor)
    if target is None:
        known = ", ".join(sorted(EXECUTORS))
        raise UsageError(
            f"This version sends no runs to executor '{executor}'. "
            f"{did_you_mean(executor, EXECUTORS)}".strip(),
            fix=f"Choose a profile whose executor is one of: {known}. See them: tunedeck env list",
        )
    module, _, name = target.partition(":")
    factory = getattr(importlib.import_module(f".{module}", __package__), name)
    return cast("Backend", factory(profile_values))
