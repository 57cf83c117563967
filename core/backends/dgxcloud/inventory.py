"""Projects with their GPUs, node pools, and the workloads of the profile's project."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from .client import RunAI

_OVER = ("Completed", "Failed", "Stopped")


async def inventory(runai: RunAI, values: Mapping[str, Any]) -> dict[str, Any]:
    """The tables `projects`, `node_pools` and `jobs`.

    Raises:
        TunedeckError: if the service cannot be reached or refuses.
    """
    own = await runai.project()
    projects, clusters, pools, workloads = await asyncio.gather(
        runai.rows("/org-unit/projects", "projects"),
        runai.clusters(),
        node_pools(runai, str(own.get("clusterId"))),
        runai.rows("/workloads", "workloads", filterBy=f"projectName=={own['name']}"),
    )
    names = {str(cluster.get("uuid")): str(cluster.get("name")) for cluster in clusters}
    return {
        "projects": [
            {
                "name": str(row.get("name")),
                "cluster": names.get(str(row.get("clusterId")), ""),
                "gpus": gpu_quota(row),
                "gpus_allocated": _allocated(row),
            }
            for row in projects
        ],
        "node_pools": [
            {"name": str(row.get("name")), "state": str(row.get("phase") or "")} for row in pools
        ],
        "jobs": [
            {
                "job_id": str(row.get("id")),
                "name": str(row.get("name")),
                "type": str(row.get("type")),
                "state": str(row.get("phase")),
                "created_at": str(row.get("createdAt") or ""),
                "waits_for": str(row.get("phaseMessage") or ""),
            }
            for row in workloads
            if row.get("phase") not in _OVER and not row.get("deletedAt")
        ],
    }


async def node_pools(runai: RunAI, cluster: str) -> list[dict[str, Any]]:
    """The node pools of a cluster."""
    rows = await runai.rows("/node-pools", "nodepools", filterBy=f"clusterId=={cluster}")
    return [row for row in rows if row.get("clusterId") in (None, cluster)]


def gpu_quota(project: Mapping[str, Any]) -> float | None:
    """The GPUs that a project is entitled to, in all node pools; None where it is not told."""
    told = [(row.get("gpu") or {}).get("deserved") for row in project.get("resources") or ()]
    known = [float(value) for value in told if isinstance(value, int | float)]
    return sum(known) if known else None


def _allocated(project: Mapping[str, Any]) -> float | None:
    status = (project.get("status") or {}).get("quotaStatus") or {}
    value = (status.get("allocated") or {}).get("gpu")
    return float(value) if isinstance(value, int | float) else None
