"""How a job ends: by being told to, and what its exit code and its own last word say of it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from ..errors import DeadlineError
from ..states import RunState, Status

LAST_WORD = b"tunedeck: exit="
"""What the last line of every run's log begins with."""

PREEMPTED = 75
"""EX_TEMPFAIL of sysexits(3): stopped before its end, saved, to be resumed."""

SAVED = "stopped before its end, with what it had saved to resume from"
"""The reason of a run that ended with that."""

SIGNALLED = 128
"""What a shell adds to the number of the signal that killed a command."""

_BY_LOG = "known from its log alone"

_CANCEL_LIMIT_S = 180.0
_CANCEL_PACE_S = 1.0

_OTHER_NODE = re.compile(rb"\[\d+\] ")
_CODE = re.compile(rb"tunedeck: exit=(\d{1,3})\s*$")


def exit_code_in(lines: Iterable[bytes]) -> int | None:
    """The exit code that the last word among the lines tells; None if it is not among them."""
    found = [match for line in lines if (match := _CODE.match(line))]
    return int(found[-1][1]) if found else None


def code_of_nodes(codes: Iterable[int | None]) -> int | None:
    """The exit code of a job of several nodes: the first failure, one by a signal counting last.

    What a node failed of by itself ended the others, which were signalled.
    """
    known = [code for code in codes if code is not None]
    failures = sorted((code for code in known if code), key=lambda code: code > SIGNALLED)
    return next(iter(failures or known), None)


def with_exit_code(status: Status, code: int | None) -> Status:
    """A status of a job that has ended, with what its exit code adds to the service's word."""
    if code is None:
        return status
    if status.state is not RunState.FAILED:
        return replace(status, exit_code=code)
    if code == PREEMPTED:
        return replace(status, state=RunState.PREEMPTED, reason=SAVED, exit_code=code)
    told = f"exit code {code}" if code <= SIGNALLED else f"killed by signal {code - SIGNALLED}"
    reason = status.reason if str(code) in status.reason else f"{told}; {status.reason}"
    return replace(status, reason=reason.removesuffix("; "), exit_code=code)


def by_its_last_word(status: Status, log: Iterable[bytes]) -> Status:
    """What a job that its service has forgotten says of itself, if its log ends with that.

    Args:
        status: the service's word, which is that it knows nothing.
        log: the last lines that were brought home; those of other nodes than the first begin with
            the node's number.
    """
    last: dict[bytes, bytes] = {}
    for line in log:
        if line.strip():
            node = found[0] if (found := _OTHER_NODE.match(line)) else b""
            last[node] = line.removeprefix(node)
    if exit_code_in([last.get(b"", b"")]) is None:
        return status
    code = code_of_nodes(exit_code_in([line]) for line in last.values())
    state = RunState.FAILED if code else RunState.SUCCEEDED
    return with_exit_code(replace(status, state=state, reason=_BY_LOG), code)


async def stopped(
    what: str,
    look: Callable[[], Awaitable[Status]],
    stop: Callable[[], Awaitable[object]],
    advice: str,
) -> Status:
    """Stop a job that has not ended, and look at it until its place says that it has.

    Args:
        what: the job, for the message.
        look: its status now.
        stop: asks for its end.
        advice: what a person may do if it goes on.

    Raises:
        DeadlineError: if it goes on all the same.
    """
    if not (status := await look()).state.terminal:
        await stop()
    deadline = time.monotonic() + _CANCEL_LIMIT_S
    while not status.state.terminal and not (status := await look()).state.terminal:
        if time.monotonic() > deadline:
            text = f"{what} is still {status.word} {_CANCEL_LIMIT_S:.0f} s after it was cancelled."
            raise DeadlineError(text, fix=advice)
        await asyncio.sleep(_CANCEL_PACE_S)
    return status
