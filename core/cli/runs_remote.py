"""`runs fetch`, `attach` and `delete`: runs whose files, launcher or job are elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from ..text import counted
from .output import line, note, print_json

if TYPE_CHECKING:
    from ..runs.record import RunRecord
    from ..runs.registry import Registry


def fetch_files(record: RunRecord, pattern: str | None, *, as_json: bool) -> None:
    """Bring files home, and say what came."""
    from ..runs.fetch import fetch
    from ..runs.watch import backend_of
    from .transfer import TransferLine

    progress = TransferLine("Fetching")
    try:
        brought = asyncio.run(fetch(record, backend_of(record), pattern, progress.show))
    finally:
        progress.clear()
    if as_json:
        print_json({"run_id": record.run_id, "files": [str(path) for path in brought]})
        return
    for path in brought:
        line(str(path))
    note(f"{counted(len(brought), 'file')} of {record.run_id} in {record.run_dir}.")


def forget_job(record: RunRecord) -> None:
    """Remove a run's job where it ran.

    Raises:
        UsageError: if its backend keeps none.
    """
    from ..backends.base import Forgets
    from ..errors import UsageError
    from ..runs.watch import backend_of

    backend = backend_of(record)
    if not isinstance(backend, Forgets):
        raise UsageError(
            f"{record.backend} keeps no jobs that could be removed.", fix="Leave --at-service out."
        )
    if record.backend_handle is not None:
        asyncio.run(backend.forget(record.backend_handle))


def attach_job(profile: str, job_id: str, env_file: Path | None) -> tuple[RunRecord, Registry]:
    """Put a job that was launched from elsewhere into the registry of this machine.

    Raises:
        UsageError: if the profile's backend cannot tell a job's plan.
        NotFoundError: if there is no such job, or it is no run of ours.
    """
    from ..runs.adopt import adopt
    from ..runs.registry import Registry
    from .queue import backend_of_profile

    backend, values = backend_of_profile(profile, env_file)
    registry = Registry()
    return asyncio.run(adopt(backend, profile, values, job_id, registry)), registry
