"""Run:ai as the scenario table sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.clouds.runai import FakeRunAI
from tests.system.clouds.runai_schema import CLAIM, CLIENT, PROJECT, SECRET
from tests.system.places import plan_for, quick
from tunedeck.core.backends.base import Backend, load_backend
from tunedeck.core.backends.cloud import carriers, http
from tunedeck.core.plan import Plan

REFERENCE = "${oc.env:DGXCLOUD_CLIENT_SECRET}"


class RunAIPlace:
    """A control plane and a cluster on loopback."""

    queues = True

    def __init__(self, service: FakeRunAI) -> None:
        self.service = service
        self.values: dict[str, Any] = {
            "executor": "dgxcloud",
            "base_url": service.base_url,
            "client_id": CLIENT,
            "client_secret": REFERENCE,
            "project_name": PROJECT,
            "container_image": "python:3.12",
            "pvc_nemo_run_dir": "/workspace/tunedeck",
            "pvcs": [{"path": "/workspace", "existingPvc": True, "claimName": CLAIM}],
        }

    def plan(
        self, command: str, *, restore: str | None = None, held: bool = False, **changes: Any
    ) -> Plan:
        self.service.held = held
        return plan_for(self.values, command, restore=restore, **changes)

    def backend(self, plan: Plan) -> Backend:
        return load_backend("dgxcloud", dict(plan.profile_values))

    def drop(self) -> None:
        """The next stream begins anew and is then cut, in the middle of a line."""
        self.service.cuts.append(40)

    def jobs_of(self, plan: Plan) -> int:
        names = [workload.name for workload in self.service.workloads.values()]
        return sum(name.endswith(plan.run_id) for name in names)


@contextlib.contextmanager
def tenant_on_loopback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRunAI]:
    """A tenant whose application's secret is in the environment, and whose authority is trusted."""
    quick(monkeypatch)
    monkeypatch.setattr(carriers, "PACE_S", 0.2)
    service = FakeRunAI(folder / "runai")
    service.start()
    monkeypatch.setenv("DGXCLOUD_CLIENT_SECRET", SECRET)
    monkeypatch.setenv("SSL_CERT_FILE", str(service.authority))
    http.tls.cache_clear()
    yield service
    service.stop()
    http.tls.cache_clear()
    assert service.errors == []
