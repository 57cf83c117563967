"""Submitting so that there is one job, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..base import Handle
from .errors import Passing, Taken
from .retry import persist

LOOKS_S = (1.0, 2.0, 4.0)
"""After each of these a submission whose answer was lost is looked for, before it is sent again."""

_SENDS = 3


async def submit_once(
    find: Callable[[], Awaitable[Handle | None]], send: Callable[[], Awaitable[Handle]]
) -> Handle:
    """Send a submission unless its job is there already.

    None of the services takes a key that would make a second sending harmless. So a send whose
    answer was lost is first looked for, several times, since a list may lag behind.

    Args:
        find: the job of this submission, if there is one. Is tried again by itself.
        send: sends it once. Raises `Passing` with `acted` where it may have arrived.

    Raises:
        Passing: if the service stays out of reach, or has taken the job and does not list it.
        TunedeckError: if it refuses the job.
    """
    if existing := await find():
        return existing
    for left in reversed(range(_SENDS)):
        try:
            return await persist(send, safe=False)
        except Taken as error:
            if found := await _looked_for(find):
                return found
            if left == _SENDS - 1:
                raise
            # By an attempt of ours, which a list that lags does not show yet.
            raise Passing(error.message, acted=True, fix="It will be listed soon.") from error
        except Passing as error:
            if not error.acted:
                raise
            if found := await _looked_for(find):
                return found
            if not left:
                raise
    raise AssertionError


async def _looked_for(find: Callable[[], Awaitable[Handle | None]]) -> Handle | None:
    for pause_s in LOOKS_S:
        await asyncio.sleep(pause_s)
        if found := await find():
            return found
    return None
