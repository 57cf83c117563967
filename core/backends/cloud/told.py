"""The plan of a run in its job's own environment, for those who find the job at the service."""

from __future__ import annotations

import base64
import binascii
import gzip
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import NotFoundError
from ...plan import Plan
from ...submission import json_text
from ..base import Handle

VARIABLE = "TUNEDECK_PLAN"

WRITE = (
    f'if [ "$rank" = 0 ]; then printf %s "${VARIABLE}" | base64 -d | gzip -dc > plan.json; fi',
    f"unset {VARIABLE}",
)
"""Shell lines by which the job leaves the plan in the run's folder."""


def plan_text(plan: Plan) -> str:
    """The value of the variable: what `plan.json` holds, packed."""
    text = json_text(plan.to_json())
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def plan_of(envs: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The plan among a job's variables; None where there is none, or none that can be read."""
    for env in envs:
        if env.get("name") == VARIABLE:
            try:
                told = json.loads(gzip.decompress(base64.b64decode(str(env.get("value")))))
            except (ValueError, OSError, EOFError, binascii.Error):
                return None
            return told if isinstance(told, dict) and told.get("run_id") else None
    return None


def not_ours(job: str, *, known: bool) -> NotFoundError:
    """The error for a job that cannot be attached to."""
    if not known:
        return NotFoundError(f"{job} is not there.", fix="See what is: tunedeck queue PROFILE")
    return NotFoundError(
        f"{job} carries no plan of Tunedeck's, so it cannot be attached to.",
        fix="Attach to runs that Tunedeck has submitted. See: tunedeck queue PROFILE",
    )


def gone(handle: Handle) -> NotFoundError:
    """The error for a run whose job would tell image and mounts, and is no longer there."""
    return NotFoundError(
        f"The service has no job {handle.job_id} any more, whose mounts hold the files of "
        f"{handle.run_id}.",
        fix=f"Copy them from a machine or a pod that mounts {handle.data.get('run_dir')}.",
    )
