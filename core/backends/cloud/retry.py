"""When to ask a service again, and how long to wait before that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import TypeVar

from .errors import Passing

T = TypeVar("T")

PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between one try and the next; the last try's failure is told."""

_HASTY_TRIES = 2
_in_haste: ContextVar[bool] = ContextVar("in_haste", default=False)

_LONGEST_S = 60.0
"""A service that asks to be left alone for longer is believed, and not waited for."""


@contextmanager
def haste() -> Iterator[None]:
    """Give up after two more tries, in seconds: a person waits, and can ask again."""
    token = _in_haste.set(True)
    try:
        yield
    finally:
        _in_haste.reset(token)


async def persist(attempt: Callable[[], Awaitable[T]], *, safe: bool) -> T:
    """Try until it works, the pauses are used up, or trying again could do something twice.

    A request that the service has not acted on (429, no connection) can always be sent again; one
    that it may have acted on (a cut or late answer, 5xx), only where doing it twice is as once.

    Args:
        attempt: one try; raises `Passing` for what may pass.
        safe: whether it may be done twice.

    Raises:
        Passing: what the last try failed of.
        TunedeckError: what no later try would change.
    """
    pauses = PAUSES_S[:_HASTY_TRIES] if _in_haste.get() else PAUSES_S
    for pause_s in (*pauses, None):
        try:
            return await attempt()
        except Passing as error:
            wait_s = pause_s if error.after_s is None else error.after_s
            if pause_s is None or wait_s is None or wait_s > _LONGEST_S or error.given_up:
                error.given_up = True  # what asks around this must not do all that again
                raise
            if error.acted and not safe:
                raise
        await asyncio.sleep(wait_s)
    raise AssertionError


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, in either of its two forms (RFC 9110, 10.2.3).

    A moment is reckoned against the service's own clock where it tells that: ours may be wrong.
    """
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return float(text)
    moment = _moment(text)
    if moment is None:
        return None
    now = _moment(headers.get("date", ""))
    return max(0.0, moment - (time.time() if now is None else now))


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
