"""Flavors and their prices, and the jobs that a namespace has now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ...plan import Plan
from .client import Hub
from .job import RUN_LABEL
from .settings import namespace_of, timeout_of

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_LIVE = ["SCHEDULING", "RUNNING"]


async def inventory(hub: Hub, values: Mapping[str, Any]) -> dict[str, Any]:
    """The tables `flavors` and `jobs`.

    Raises:
        UsageError: if the profile names no namespace.
        TunedeckError: if the service cannot be reached or refuses.
    """
    namespace = namespace_of(values)
    hardware, jobs = await asyncio.gather(
        hub.call("list_jobs_hardware"),
        hub.call("list_jobs", namespace=namespace, narrow={"status": _LIVE}),
    )
    return {
        "flavors": [
            {
                "name": flavor.name,
                "gpus": gpus_of(flavor),
                "gpu": flavor.accelerator.model if flavor.accelerator else "",
                "gpu_memory": flavor.accelerator.vram if flavor.accelerator else "",
                "cpu": flavor.cpu,
                "memory": flavor.ram,
                "usd_per_hour": round(_per_second(flavor) * 3600, 4),
            }
            for flavor in hardware
        ],
        "jobs": [
            {
                "job_id": job.id,
                "run_id": (job.labels or {}).get(RUN_LABEL, ""),
                "name": (job.labels or {}).get("name", ""),
                "flavor": str(getattr(job.flavor, "value", job.flavor)),
                "state": _stage(job),
                "created_at": job.created_at.isoformat() if job.created_at else "",
            }
            for job in jobs
            if _stage(job) in _LIVE
        ],
    }


async def price(hub: Hub, plan: Plan) -> dict[str, Any] | None:
    """The unit price, and what the run costs at most: its whole time limit, at every attempt.

    None for a flavor that the service does not list; preflight speaks of that.
    """
    wanted = plan.profile_values.get("flavor")
    for flavor in await hub.call("list_jobs_hardware"):
        if flavor.name == wanted:
            seconds = timeout_of(plan.profile_values)
            attempts = int(plan.profile_values.get("attempts") or 1)
            return {
                "flavor": flavor.name,
                "unit_price_usd": flavor.unit_cost_usd,
                "unit": flavor.unit_label,
                "timeout_s": seconds,
                "attempts": attempts,
                "at_most_usd": round(_per_second(flavor) * seconds * attempts, 4),
            }
    return None


def gpus_of(flavor: Any) -> int:
    """The GPUs of a flavor as the service describes it. Other accelerators are none."""
    accelerator = flavor.accelerator
    if accelerator is None or accelerator.type.lower() != "gpu":
        return 0
    return int(accelerator.quantity)


def _stage(job: Any) -> str:
    return str(getattr(job.status.stage, "value", job.status.stage))


def _per_second(flavor: Any) -> float:
    micro: int = flavor.unit_cost_micro_usd
    return micro / 1e6 / _UNITS[flavor.unit_label.lower().rstrip("s")]
