"""What the tests of the clouds share: a Hub that is not waited for, and a training to compare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.clouds.hf import FakeHub
from tests.system.clouds.training import train_here
from tests.system.places import HFPlace, hub_on_loopback, quick
from tunedeck.core.backends.cloud import once, retry


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub on this machine; what is tried again is tried at once."""
    quick(monkeypatch)
    monkeypatch.setattr(retry, "PAUSES_S", (0.05,) * 4)
    monkeypatch.setattr(once, "LOOKS_S", (0.05,) * 3)
    with hub_on_loopback(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def place(hub: FakeHub) -> HFPlace:
    """A profile of it."""
    return HFPlace(hub)


@pytest.fixture(scope="session")
def trained_here(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The log of the shipped launch on this machine."""
    return train_here(tmp_path_factory.mktemp("here"))
