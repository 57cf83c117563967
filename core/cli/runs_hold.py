"""`runs suspend`, and `runs resume` of a run that was suspended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..errors import ExitCode
from ..runs.suspension import go_on, suspend
from ..runs.watch import backend_of
from .follow import follow_run
from .live import state_words
from .output import line, note, print_json

if TYPE_CHECKING:
    from ..runs.record import RunRecord
    from ..runs.registry import Registry


def put_on_hold(record: RunRecord, registry: Registry, *, as_json: bool) -> None:
    """Put a run on hold, and say how it is then."""
    if record.state.terminal:
        note(f"{state_words(record)}. There is nothing to put on hold.")
    else:
        record = asyncio.run(suspend(record, backend_of(record), registry))
        if not as_json:
            line(state_words(record))
    if as_json:
        print_json(record.to_json())


def go_on_in_place(
    record: RunRecord, registry: Registry, detached: bool, *, dry_run: bool, as_json: bool
) -> int:
    """Have a suspended run go on as the same job, and follow it unless `detached`."""
    if dry_run:
        note(f"{record.run_id} would go on as the same job, {record.job_id}; nothing is sent.")
        return ExitCode.OK
    offset = record.log.stat().st_size if record.log.exists() else 0
    record = asyncio.run(go_on(record, backend_of(record), registry))
    if not detached:
        return follow_run(record, registry, as_json=as_json, offset=offset)
    if as_json:
        print_json(record.to_json())
    else:
        line(state_words(record))
    return ExitCode.OK
