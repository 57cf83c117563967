"""The clouds on loopback, quick to be asked again, for the tests of their backends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.clouds.lepton import FakeLepton
from tests.system.clouds.lepton_place import LeptonPlace, workspace_on_loopback
from tests.system.clouds.runai import FakeRunAI
from tests.system.clouds.runai_place import RunAIPlace, tenant_on_loopback
from tunedeck.core.backends.cloud import http, once, retry


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are tried again at once, and an answer may take two seconds."""
    monkeypatch.setattr(retry, "PAUSES_S", (0.02, 0.05))
    monkeypatch.setattr(once, "LOOKS_S", (0.05, 0.1))
    monkeypatch.setattr(http, "ANSWER_S", 2.0)


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
