"""Lepton and Run:ai: a job that does not start says why."""

from __future__ import annotations

import pytest

from tests.core.backends.cloud_runs import submit
from tests.core.backends.conftest import Cloud
from tests.system.clouds.runai_workload import Workload
from tunedeck.core.states import RunState

EVENTS = [
    ("Normal", "Scheduled", "Successfully assigned the pod to node-3"),
    ("Warning", "Failed", 'Failed to pull image "no/such:1": not found'),
]


@pytest.fixture(autouse=True)
def pulls_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run:ai's word for a workload whose pod has a node and no image yet."""
    monkeypatch.setattr(Workload, "phase", property(lambda _: "Initializing"))


async def test_the_newest_event_is_the_reason(cloud: Cloud) -> None:
    cloud.service.events = EVENTS
    backend, handle = await submit(cloud.place, cloud.place.plan("true", held=True))
    status = await backend.status(handle)
    assert status.state in (RunState.QUEUED, RunState.STARTING)
    assert status.reason == 'Failed: Failed to pull image "no/such:1": not found'


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_events_that_cannot_be_had_hide_nothing(cloud: Cloud, status: int) -> None:
    backend, handle = await submit(cloud.place, cloud.place.plan("true", held=True))
    cloud.service.fault("GET", "/events$", status=status, times=99)
    assert (await backend.status(handle)).state in (RunState.QUEUED, RunState.STARTING)
    assert (await backend.status(handle)).reason == ""
