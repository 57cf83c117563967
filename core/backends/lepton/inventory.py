"""Node groups with what is free in them, the shapes they offer, and my jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from ...errors import NotFoundError
from .client import ALIVE, Lepton, id_of, name_of
from .job import RUN_LABEL
from .watch import status_from


async def inventory(lepton: Lepton, values: Mapping[str, Any]) -> dict[str, Any]:
    """The tables `node_groups`, `shapes` (those of the profile's node group) and `jobs`.

    Raises:
        TunedeckError: if the service cannot be reached or refuses.
    """
    groups, jobs = await asyncio.gather(lepton.node_groups(), lepton.jobs(ALIVE))
    nodes = await asyncio.gather(*(_nodes(lepton, id_of(group)) for group in groups))
    wanted = str(values.get("node_group") or "")
    group_id = next((id_of(g) for g in groups if wanted in (id_of(g), name_of(g))), None)
    return {
        "node_groups": [
            {
                "name": name_of(group),
                "id": id_of(group),
                "gpu": str((group.get("spec") or {}).get("gpu_product") or ""),
                "nodes": len(found) or int((group.get("spec") or {}).get("desired_nodes") or 0),
                "nodes_ready": int((group.get("status") or {}).get("ready_nodes") or 0),
                **_gpus(found),
            }
            for group, found in zip(groups, nodes, strict=True)
        ],
        "shapes": [shape_row(shape) for shape in await shapes(lepton, group_id)],
        "jobs": [_job(job) for job in jobs],
    }


async def shapes(lepton: Lepton, group_id: str | None) -> list[dict[str, Any]]:
    """The shapes that jobs may have in a node group; without one, all."""
    options = {"purpose": "job"} | ({"node_groups": group_id} if group_id else {})
    return await lepton.rows("/shapes", **options)


def shape_row(shape: Mapping[str, Any]) -> dict[str, Any]:
    """A shape in a few words."""
    spec = shape.get("spec") or {}
    return {
        "name": str(spec.get("name") or name_of(shape)),
        "gpus": gpus_of(shape),
        "gpu": str(spec.get("accelerator_type") or ""),
        "cpus": spec.get("cpu"),
        "memory": int(spec.get("memory_in_mb") or 0) << 20,
    }


def gpus_of(shape: Mapping[str, Any]) -> int:
    """The GPUs of a shape."""
    return int((shape.get("spec") or {}).get("accelerator_num") or 0)


async def _nodes(lepton: Lepton, group_id: str) -> list[dict[str, Any]]:
    try:
        return await lepton.rows(f"/dedicated-node-groups/{group_id}/nodes")
    except NotFoundError:
        return []


def _gpus(nodes: list[dict[str, Any]]) -> dict[str, int]:
    told = [((node.get("spec") or {}).get("resource") or {}).get("gpu") or {} for node in nodes]
    total = sum(int(gpu.get("total") or 0) for gpu in told)
    return {"gpus": total, "gpus_free": total - sum(int(gpu.get("allocated") or 0) for gpu in told)}


def _job(job: Mapping[str, Any]) -> dict[str, Any]:
    status, spec = status_from(job), job.get("spec") or {}
    running = status.started_at and status.state not in ("queued", "starting")
    return {
        "job_id": id_of(job),
        "run_id": str(((job.get("metadata") or {}).get("labels") or {}).get(RUN_LABEL, "")),
        "name": name_of(job),
        "shape": str(spec.get("resource_shape") or ""),
        "nodes": int(spec.get("parallelism") or 1),
        "state": status.word,
        "elapsed_s": round(time.time() - status.started_at) if running and status.started_at else 0,
    }
