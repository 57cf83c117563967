"""From a selection to something that can be looked at and then sent: one path for every reader."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .errors import TunedeckError, UsageError
from .preflight import preflight
from .resolve import resolve
from .selection import Selection

if TYPE_CHECKING:
    from .backends.base import Backend
    from .catalog import Step
    from .findings import Finding
    from .plan import Plan
    from .submission import Submission


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan, its submission and what the checks say of it. `launch` sends `submission` as it is.

    `price` is what the backend says it may cost at most, or None.
    """

    selection: Selection
    step: Step
    plan: Plan
    backend: Backend
    submission: Submission
    findings: list[Finding]
    price: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The contract's shape for `--dry-run --json`."""
        return {
            "plan": self.plan.to_json(),
            "submission": self.submission.to_json(),
            "findings": [finding.to_json() for finding in self.findings],
            "notes": list(self.plan.notes),
            "price": self.price,
        }


async def prepare(selection: Selection, *, online: bool) -> Prepared:
    """Resolve, render and check a selection. Writes nothing; uses the network only if `online`.

    Raises:
        UsageError: if the selection cannot be resolved, or its step cannot be run as a job.
    """
    from .backends.base import load_backend
    from .catalog import load_catalog

    catalog = load_catalog(selection.catalog)
    step = catalog.find(selection.step)
    plan = resolve(selection, catalog)
    if reason := step.not_runnable(plan.executor):
        raise UsageError(f"{step.id} cannot be run: {reason}")
    backend = load_backend(plan.executor, dict(plan.profile_values))
    submission = backend.render(plan)
    if online:
        submission = await _settled(backend, submission)
    findings, price = await _judged(plan, step, backend, online=online)
    return Prepared(selection, step, plan, backend, submission, findings, price)


async def check_online(prepared: Prepared) -> Prepared:
    """The same plan and submission, with the backend's ids and its verdict. Uses the network."""
    backend, plan = prepared.backend, prepared.plan
    submission = await _settled(backend, prepared.submission)
    findings, price = await _judged(plan, prepared.step, backend, online=True)
    return replace(prepared, submission=submission, findings=findings, price=price)


async def _judged(
    plan: Plan, step: Step, backend: Backend, *, online: bool
) -> tuple[list[Finding], dict[str, Any] | None]:
    """What the checks say and what the run costs at most, asked for side by side.

    A price that cannot be had is no reason not to say the rest.
    """
    from .findings import Finding, blocking

    async def price() -> dict[str, Any] | TunedeckError | None:
        try:
            return await backend.price(plan) if online and backend.capabilities.price else None
        except TunedeckError as error:
            return error

    findings, found = await asyncio.gather(preflight(plan, step, backend, online=online), price())
    if not isinstance(found, TunedeckError):
        return findings, found
    unknown = Finding("warning", f"What it costs is not known: {found.message}")
    return (findings if blocking(findings) else [*findings, unknown]), None


async def _settled(backend: Backend, submission: Submission) -> Submission:
    """With the ids that the service knows; without them where it does not tell them.

    Why it does not is what preflight says.
    """
    from .backends.base import Settles

    if not isinstance(backend, Settles):
        return submission
    with suppress(TunedeckError):
        return await backend.settle(submission)
    return submission
