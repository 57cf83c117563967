"""Jobs that go ahead of a run and write its inputs to storage which only jobs can write to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...errors import DeadlineError, TunedeckError
from ...states import RunState, Status
from ..layout import Upload
from .errors import Passing
from .parcel import carrier_names, pack, parts_of, variables
from .parcel_scripts import carrier_script

LIMIT_S = 1800.0
PACE_S = 2.0

_SIDE_BY_SIDE = 4


class Service(Protocol):
    """What a service does for carriers."""

    async def carrier_status(self, name: str) -> Status | None:
        """The state of a carrier, also of one that ended long ago; None if there is none."""
        ...

    async def start_carrier(self, name: str, env: Mapping[str, str], script: str) -> None:
        """Start one. A name that is taken is no error."""
        ...

    async def drop_carrier(self, name: str) -> None:
        """Forget one that has failed, so that its name can be used again."""
        ...


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    env: Mapping[str, str]
    script: str


async def carry(service: Service, uploads: Sequence[Upload], shared: str, place: str) -> None:
    """Bring uploads to a folder of the mounted storage, and return once they are there.

    The service's own list of jobs tells what was brought before: a carrier's name says its content
    and its place.

    Args:
        service: starts and watches the jobs.
        uploads: what is to be brought.
        shared: the folder that their targets are below.
        place: what tells this storage from others.

    Raises:
        TunedeckError: if a carrier fails.
        DeadlineError: if they do not come to run.
    """
    parts = [part for upload in uploads for part in _parts(upload, shared, place)]
    gate = asyncio.Semaphore(_SIDE_BY_SIDE)
    deadline = time.monotonic() + LIMIT_S

    async def bring(part: _Part) -> None:
        async with gate:
            await _start(service, part)
        while not (status := await _seen(service, part.name)).state.terminal:
            if time.monotonic() > deadline:
                raise DeadlineError(
                    f"Job {part.name}, which brings an input to the storage, is still "
                    f"{status.word or status.state} after {LIMIT_S / 60:.0f} minutes.",
                    fix="Launch again once there is room; what has been brought stays.",
                )
            await asyncio.sleep(PACE_S)
        if status.state is not RunState.SUCCEEDED:
            raise TunedeckError(
                f"Job {part.name} could not bring an input to the storage: "
                f"{status.reason or status.word}",
                fix="See its log at the service, and check that the mount can be written.",
            )

    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(bring(part))
    except* TunedeckError as failed:
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


def _parts(upload: Upload, shared: str, place: str) -> list[_Part]:
    pieces = parts_of(pack([upload], shared))
    names = carrier_names(upload, place, len(pieces))
    return [
        _Part(name, variables(piece), carrier_script(upload, shared, number, len(pieces)))
        for number, (name, piece) in enumerate(zip(names, pieces, strict=True))
    ]


async def _start(service: Service, part: _Part) -> None:
    known = await service.carrier_status(part.name)
    if known is not None and known.state.terminal and known.state is not RunState.SUCCEEDED:
        await service.drop_carrier(part.name)
        known = None
    if known is not None:
        return
    try:
        await service.start_carrier(part.name, part.env, part.script)
    except Passing as error:
        if not error.acted or await service.carrier_status(part.name) is None:
            raise


async def _seen(service: Service, name: str) -> Status:
    """A carrier that the service does not show yet counts as queued."""
    return await service.carrier_status(name) or Status(RunState.QUEUED)
