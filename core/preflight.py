"""Everything that can be known to be wrong before a run is registered.

Checks run side by side, each with a time limit; one that fails or hangs becomes a finding of its
own and hides none of the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from .backends.base import Backend, Remarks
from .checks.adapter import adapter
from .checks.continuing import continuing
from .checks.fit import batch_and_mesh, memory, output_room, profile_file, setup
from .checks.inputs import dataset, merged, model, packages, secrets_present, step_rules, tokenizer
from .errors import TunedeckError
from .findings import Finding

if TYPE_CHECKING:
    from .catalog import Step
    from .plan import Plan

_LIMIT = 60.0

Check = Callable[["Plan", "Step"], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    step_rules,
    secrets_present,
    profile_file,
    dataset,
    model,
    merged,
    tokenizer,
    packages,
    adapter,
    continuing,
    output_room,
    batch_and_mesh,
    setup,
    memory,
)
"""The checks that need no network, in no particular order."""


async def preflight(plan: Plan, step: Step, backend: Backend, *, online: bool) -> list[Finding]:
    """All findings for a plan, errors first.

    Args:
        plan: the plan to check.
        step: the step it runs, for its choices, required inputs and minimum GPUs.
        backend: asked for its own findings where it is this machine or `online` is set.
        online: whether the network may be used.
    """
    tasks = [
        _guarded(check.__name__, partial(asyncio.to_thread, _run, check, plan, step))
        for check in CHECKS
    ]
    if isinstance(backend, Remarks):
        remarks = partial(asyncio.to_thread, backend.remarks, plan)
        tasks.append(_guarded(f"{backend.name} plan", remarks))
    if online or not backend.capabilities.remote:
        tasks.append(_guarded(f"{backend.name} backend", partial(backend.preflight, plan)))
    found = [*plan.remarks, *(f for found in await asyncio.gather(*tasks) for f in found)]
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda finding: order[finding.severity])


def _run(check: Check, plan: Plan, step: Step) -> list[Finding]:
    return list(check(plan, step))


async def _guarded(name: str, work: Callable[[], Awaitable[Iterable[Finding]]]) -> list[Finding]:
    words = name.strip("_").replace("_", " ")
    try:
        return list(await asyncio.wait_for(work(), _LIMIT))
    except TimeoutError:
        return [Finding("warning", f"The check '{words}' did not finish in {_LIMIT:.0f} s.")]
    except TunedeckError as error:
        return [Finding.of(error)]
