"""Lepton as the scenario table sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.clouds.lepton import FakeLepton
from tests.system.clouds.lepton_schema import GROUP, STORAGE, TOKEN, WORKSPACE
from tests.system.places import plan_for, quick
from tunedeck.core.backends.base import Backend, load_backend
from tunedeck.core.backends.cloud import carriers
from tunedeck.core.backends.lepton import logs as lepton_logs
from tunedeck.core.plan import Plan


class LeptonPlace:
    """A workspace on loopback."""

    queues = True

    def __init__(self, service: FakeLepton) -> None:
        self.service = service
        self.values: dict[str, Any] = {
            "executor": "lepton",
            "container_image": "python:3.12",
            "node_group": GROUP,
            "resource_shape": "cpu.small",
            "remote_job_dir": "/mnt/workspace/tunedeck",
            "mounts": [{"path": "/users/ada", "mount_path": "/mnt/workspace", "from": STORAGE}],
        }

    def plan(
        self, command: str, *, restore: str | None = None, held: bool = False, **changes: Any
    ) -> Plan:
        self.service.held = held
        return plan_for(self.values, command, restore=restore, **changes)

    def backend(self, plan: Plan) -> Backend:
        return load_backend("lepton", dict(plan.profile_values))

    def drop(self) -> None:
        """The next look at the log is answered, and the answer cut off."""
        self.service.fault("GET", "/logs$", lost=True, times=2)

    def jobs_of(self, plan: Plan) -> int:
        return sum(job.id.endswith(plan.run_id) for job in self.service.jobs.values())


@contextlib.contextmanager
def workspace_on_loopback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLepton]:
    """A workspace that the environment names, with its good token."""
    quick(monkeypatch)
    monkeypatch.setattr(lepton_logs, "PACE_S", 0.1)
    monkeypatch.setattr(lepton_logs, "SLOW_PACE_S", 0.5)
    monkeypatch.setattr(lepton_logs, "CLOSING_S", 2.0)
    monkeypatch.setattr(carriers, "PACE_S", 0.2)
    service = FakeLepton(folder / "lepton")
    service.start()
    monkeypatch.setenv("LEPTON_WORKSPACE_URL", service.workspace_url)
    monkeypatch.setenv("LEPTON_WORKSPACE_ID", WORKSPACE)
    monkeypatch.setenv("LEPTON_WORKSPACE_TOKEN", TOKEN)
    yield service
    service.stop()
    assert service.errors == []
