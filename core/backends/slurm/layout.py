"""Where everything of a run lies on the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ... import locations
from ...errors import UsageError
from ...plan import Plan
from ..layout import Layout


def layout_of(plan: Plan) -> Layout:
    """The layout of a plan.

    Raises:
        UsageError: if the profile names no absolute folder for its jobs.
    """
    return Layout.under(job_root(plan.profile_values, plan.profile), plan)


def job_root(values: Mapping[str, Any], profile: str) -> str:
    """The folder for runs on the cluster.

    Raises:
        UsageError: if it is not absolute, or missing where it cannot be this machine's own.
    """
    root = str(values.get("remote_job_dir") or "").rstrip("/")
    if not root and uses_ssh(values):
        raise UsageError(
            f"Profile '{profile}' does not say where its runs go on the cluster.",
            fix='Set remote_job_dir to a folder that all nodes share: remote_job_dir = "/…"',
        )
    if not root:
        return str(locations.state_dir() / "slurm")
    if not root.startswith("/") or "$" in root:
        why = "in which nothing expands '$'" if "$" in root else "which is not absolute"
        raise UsageError(
            f"remote_job_dir of profile '{profile}' is '{root}', {why}.",
            fix="Write the whole path, as all nodes see it.",
        )
    return root


def uses_ssh(values: Mapping[str, Any]) -> bool:
    """Whether Slurm's commands run on a login host; else they run here."""
    tunnel = values.get("tunnel") or ("ssh" if values.get("host") else "local")
    return bool(tunnel == "ssh")
