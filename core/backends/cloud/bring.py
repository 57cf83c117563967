"""Getting what a run needs onto storage that is mounted into its job, each thing by its way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ..layout import Upload
from .carriers import Service, carry
from .parcel import AHEAD, ALONG, HERE, filled, pack, put, variables


async def bring(
    payload: Mapping[str, Any], service: Service, place: str, envs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Bring a submission's uploads, and return the job's variables with those that travel in them.

    Args:
        payload: its `uploads`, each with the way it goes, and the folder `shared` above them all.
        service: starts the jobs that go ahead.
        place: what tells the storage from others.
        envs: the job's variables as the preview shows them.

    Raises:
        UsageError: if something has changed since it was planned.
        TunedeckError: if something cannot be brought.
    """
    shared = str(payload["shared"])
    ways: dict[str, list[Upload]] = {}
    for item in payload["uploads"]:
        ways.setdefault(item["by"], []).append(Upload.from_json(item))
    await asyncio.to_thread(put, ways.get(HERE, ()))
    if ahead := ways.get(AHEAD):
        await carry(service, ahead, shared, place)
    along = ways.get(ALONG)
    packed = await asyncio.to_thread(pack, along, shared) if along else b""
    return filled(envs, variables(packed))
