"""The clouds on loopback, quick to be asked again, for the tests of their backends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.system.clouds.lepton import FakeLepton
from tests.system.clouds.lepton_place import LeptonPlace, workspace_on_loopback
from tests.system.clouds.runai import FakeRunAI
from tests.system.clouds.runai_place import RunAIPlace, tenant_on_loopback
from tests.system.clouds.runai_schema import CLAIM
from tunedeck.core.backends.cloud import once, retry


@dataclass(frozen=True)
class Cloud:
    """A service whose storage only its jobs can write to.

    Attributes:
        place: what plans are made for.
        service: the service.
        create: the path that a job of one node is posted to.
        envs: key of a job's variables in its spec.
    """

    place: LeptonPlace | RunAIPlace
    service: FakeLepton | FakeRunAI
    create: str
    envs: str

    def sent(self) -> list[dict[str, Any]]:
        """The bodies of all jobs that were posted."""
        return [request.json() for request in self.service.sent("POST", self.create)]

    def storage(self) -> Path:
        """The folder of all runs, as this machine sees it."""
        if isinstance(self.service, FakeRunAI):
            return self.service.volume(CLAIM) / "tunedeck"
        mount = {"from": "node-nfs:lustre", "path": "/users/ada"}
        return self.service.storage(mount) / "tunedeck"


@pytest.fixture(params=["lepton", "dgxcloud"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Each of them in turn."""
    if request.param == "lepton":
        service = request.getfixturevalue("lepton")
        return Cloud(LeptonPlace(service), service, "/jobs$", "envs")
    service = request.getfixturevalue("runai")
    create = "/workloads/(trainings|distributed)$"
    return Cloud(RunAIPlace(service), service, create, "environmentVariables")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are tried again at once."""
    monkeypatch.setattr(retry, "PAUSES_S", (0.02, 0.05))
    monkeypatch.setattr(once, "LOOKS_S", (0.05, 0.1))


@pytest.fixture
def runai(
    home: Path, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeRunAI]:
    """A Run:ai tenant."""
    with tenant_on_loopback(tmp_path, monkeypatch) as service:
        yield service


@pytest.fixture
def runai_place(runai: FakeRunAI) -> RunAIPlace:
    """A project of it."""
    return RunAIPlace(runai)


@pytest.fixture
def lepton(
    home: Path, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeLepton]:
    """A Lepton workspace."""
    with workspace_on_loopback(tmp_path, monkeypatch) as service:
        yield service


@pytest.fixture
def lepton_place(lepton: FakeLepton) -> LeptonPlace:
    """A profile of it."""
    return LeptonPlace(lepton)
