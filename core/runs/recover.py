"""What became of a run whose launcher ended before its backend answered."""

from __future__ import annotations

from ..backends.base import Backend
from ..process import ProcessMark
from ..states import RunState, Status
from .record import RunRecord
from .registry import Registry

GIVEN_UP = "given up"
"""The word of a run of which its launcher does not know whether it arrived."""


async def recover(record: RunRecord, backend: Backend, registry: Registry) -> RunRecord:
    """The truth about a run whose launcher ended between the record and the backend's answer.

    A launcher that still lives, or is on another machine, is left to it. Else the backend knows
    whether the job arrived.
    """
    if record.launcher is not None and record.word != GIVEN_UP:
        launcher = ProcessMark.from_json(record.launcher)
        if launcher.alive or launcher.elsewhere:
            return record
    handle = await backend.find(record.run_id, record.run_dir)
    if handle is None:
        reason = (
            f"it did not arrive: {record.reason}"
            if record.word == GIVEN_UP
            else "its launcher ended before the job was submitted"
        )
        return registry.update(record.run_id, Status(RunState.FAILED, "not submitted", reason))
    return registry.update(record.run_id, await backend.status(handle), handle=handle)
