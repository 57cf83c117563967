"""Asking about jobs: all that is asked of one host within a moment goes there in one round trip."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass, field

from ...errors import ReachError
from ...ssh import Machine
from ...ssh.background import over_there
from ...states import Status
from ..base import Handle
from .question import Seen, answers, question
from .script import SECRETS
from .shell import run_slurm
from .status import judge

_MOMENT_S = 0.03


@dataclass(slots=True)
class _Round:
    """Jobs that are about to be asked for together."""

    jobs: dict[str, str] = field(default_factory=dict)
    reply: asyncio.Task[dict[str, Seen]] | None = None


_rounds: dict[str, _Round] = {}
"""By machine. Belongs to the loop of the background thread."""


async def status_of(machine: Machine, key: str, handle: Handle) -> Status:
    """The state of a job now.

    Args:
        machine: where it is asked.
        key: what tells this machine and login from others.
        handle: the job.

    Raises:
        ReachError: if the machine or Slurm's controller does not answer.
    """
    seen = await over_there(_ask(machine, key, handle.job_id, handle.data["run_dir"]))
    status = judge(seen)
    if status.state.terminal and seen.secrets_left:
        await machine.run(f"rm -f {shlex.quote(handle.data['run_dir'])}/{SECRETS}")
    return status


async def _ask(machine: Machine, key: str, job: str, run_dir: str) -> Seen:
    current = _rounds.setdefault(key, _Round())
    current.jobs[job] = run_dir
    if current.reply is None:
        current.reply = asyncio.create_task(_answer(machine, key, current))
    return (await asyncio.shield(current.reply))[job]


async def _answer(machine: Machine, key: str, current: _Round) -> dict[str, Seen]:
    await asyncio.sleep(_MOMENT_S)
    del _rounds[key]  # what is asked from now on goes into the next round
    done = await run_slurm(machine, question(current.jobs))
    if done.code:  # ended in the middle: what it did not come to say means nothing
        text = f"{machine.name} did not say all about its jobs (exit code {done.code})."
        raise ReachError(text, fix="Its shells may be limited or killed. Try again.")
    return answers(done.out, list(current.jobs))
