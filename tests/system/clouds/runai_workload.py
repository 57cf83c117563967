"""A workload of the fake Run:ai, its pods, and the JSON that tells of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from tests.system.clouds.jobs import LocalJob
from tests.system.clouds.runai_schema import CLIENT, CLUSTER_ID, PROJECT, PROJECT_ID, iso


@dataclass
class Workload:
    """One workload, with the pods of its last try, the master first."""

    id: str
    kind: str
    body: dict[str, Any]
    pods: dict[str, LocalJob]
    created_at: float = field(default_factory=time.time)
    tries: int = 1
    suspended: bool = False
    deleted_at: float | None = None

    @property
    def name(self) -> str:
        return str(self.body["name"])

    @property
    def first(self) -> LocalJob:
        return next(iter(self.pods.values()))

    @property
    def phase(self) -> str:
        """The service's word."""
        started = any(pod.started_at for pod in self.pods.values())
        over = all(pod.ended_at for pod in self.pods.values())
        if self.suspended:
            return "Stopping" if started and not over else "Stopped"
        if not started:
            return "Pending"
        if not over:
            return "Running"
        failed = any(pod.exit_code for pod in self.pods.values())
        return "Failed" if failed else "Completed"

    def told(self) -> dict[str, Any]:
        """The JSON of its own route."""
        desired = "Deleted" if self.deleted_at else "Stopped" if self.suspended else "Running"
        return {
            "name": self.name, "requestedName": self.name, "workloadId": self.id,
            "projectId": self.body["projectId"], "clusterId": self.body["clusterId"],
            "createdBy": CLIENT, "createdAt": iso(self.created_at),
            "deletedAt": iso(self.deleted_at), "desiredPhase": desired,
            "actualPhase": self.phase, "spec": self.body["spec"],
        }  # fmt: skip

    def row(self) -> dict[str, Any]:
        """The JSON of the list of all kinds."""
        ended = [pod.ended_at for pod in self.pods.values() if pod.ended_at]
        over = self.phase in ("Completed", "Failed", "Stopped")
        message = "Not enough resources in the node pool" if self.phase == "Pending" else ""
        return {
            "id": self.id, "name": self.name, "type": self.kind.removesuffix("s").capitalize(),
            "projectName": PROJECT, "projectId": str(PROJECT_ID), "clusterId": CLUSTER_ID,
            "phase": self.phase, "phaseMessage": message, "createdAt": iso(self.created_at),
            "deletedAt": iso(self.deleted_at),
            "completedAt": iso(max(ended)) if over and ended else None,
        }  # fmt: skip
