"""What the commands of `tunedeck runs` share: the run that is meant, as it is now."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..runs.record import RunRecord
    from ..runs.registry import Registry


def run_now(query: str) -> tuple[RunRecord, Registry]:
    """The run that is meant, as its backend sees it now, and the registry it is in."""
    from ..runs.registry import Registry
    from ..runs.watch import refresh
    from .output import note

    registry = Registry()
    refreshed = asyncio.run(refresh(registry, [registry.find(query)]))
    for text in refreshed.notes:
        note(text)
    return refreshed.records[0], registry
