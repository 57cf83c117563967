"""From a selection to something that can be looked at and then sent: one path for every reader."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .errors import TunedeckError, UsageError
from .findings import Finding, blocking
from .resolve import resolve
from .selection import Selection

if TYPE_CHECKING:
    from .backends.base import Backend
    from .catalog import Catalog, Step
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


async def prepare(
    selection: Selection, *, online: bool, catalog: Catalog | None = None
) -> Prepared:
    """Resolve, render and check a selection. Writes nothing; uses the network only if `online`.

    Raises:
        UsageError: if the selection cannot be resolved, or its step cannot be run as a job.
    """
    from .backends.base import load_backend
    from .catalog import load_catalog
    from .preflight import preflight

    catalog = catalog or load_catalog(selection.catalog)
    step = catalog.find(selection.step)
    plan = resolve(selection, catalog)
    if step.launch.kind == "unknown":
        raise UsageError(
            f"{step.id} cannot be run: {step.not_runnable(plan.executor)}",
            fix=f"Say it in {step.folder / 'step.toml'}, under [launch].",
        )
    backend = load_backend(plan.executor, dict(plan.profile_values))
    submission = backend.render(plan)
    prepared = Prepared(selection, step, plan, backend, submission, [])
    if online:
        return await check_online(prepared)
    return replace(prepared, findings=await preflight(plan, step, backend, online=False))


async def check_online(prepared: Prepared) -> Prepared:
    """The same plan and submission, with the backend's ids and its verdict. Uses the network.

    All is asked for side by side, and a service that is away is not waited for long.
    """
    from .backends.cloud.retry import haste
    from .preflight import preflight

    backend, plan = prepared.backend, prepared.plan
    with haste():
        submission, findings, price = await asyncio.gather(
            _settled(backend, prepared.submission),
            preflight(plan, prepared.step, backend, online=True),
            _price(backend, plan),
        )
    if isinstance(price, TunedeckError):
        # No reason not to say the rest, which may well say why.
        if not blocking(findings):
            findings.append(Finding("warning", f"What it costs is not known: {price.message}"))
        price = None
    return replace(prepared, submission=submission, findings=findings, price=price)


async def _price(backend: Backend, plan: Plan) -> dict[str, Any] | TunedeckError | None:
    from .backends.base import NamesPrices

    try:
        return await backend.price(plan) if isinstance(backend, NamesPrices) else None
    except TunedeckError as error:
        return error


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
