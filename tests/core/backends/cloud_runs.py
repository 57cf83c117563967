"""Submitting a plan to a cloud and reading what its job says."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Protocol

from tunedeck.core.backends.base import Backend, Handle, LogLine
from tunedeck.core.plan import LocalInput, Plan
from tunedeck.core.states import Status

CANARY = "hf_" + "c4n4ry" * 6


class HasBackends(Protocol):
    """A place that plans are made for."""

    def backend(self, plan: Plan) -> Backend:
        """The backend of a plan."""
        ...


async def submit(place: HasBackends, plan: Plan) -> tuple[Backend, Handle]:
    """Send a plan as its backend renders it."""
    backend = place.backend(plan)
    return backend, await backend.submit(backend.render(plan))


async def lines_of(backend: Backend, handle: Handle, cursor: str | None = None) -> list[LogLine]:
    """The job's lines after a cursor until it has ended."""
    async with aclosing(backend.logs(handle, cursor, follow=True)) as lines:
        return [entry async for entry in lines]


def texts(entries: list[LogLine]) -> list[str]:
    """The lines as text."""
    return [entry.line.decode() for entry in entries]


async def status_at_end(backend: Backend, handle: Handle) -> Status:
    """The job's status once its log has ended."""
    await lines_of(backend, handle)
    return await backend.status(handle)


def local_input(path: Path) -> LocalInput:
    """A file as the plan names it."""
    from tunedeck.core.inputs import content_digest

    digest, size = content_digest(path)
    return LocalInput("dataset.path_or_dataset_id", str(path), digest, size)
