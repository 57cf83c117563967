"""Lepton and Run:ai: whatever goes wrong on the way, there is one job and each line comes once."""

from __future__ import annotations

import time
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from tests.core.backends.cloud_runs import lines_of, submit, texts
from tests.core.backends.conftest import Cloud
from tunedeck.core.backends.cloud import http
from tunedeck.core.errors import ExitCode, ReachError, UsageError
from tunedeck.core.launch import launch
from tunedeck.core.plan import Launch
from tunedeck.core.runs.recover import GIVEN_UP
from tunedeck.core.runs.registry import Registry
from tunedeck.core.runs.watch import look
from tunedeck.core.states import RunState

pytestmark = pytest.mark.slow

FAULTS: dict[str, dict[str, Any]] = {
    "cut before the answer": {"lost": True},
    "cut in the middle of the answer": {"cut_after": 20},
    "no JSON": {"text": "<html>gateway</html>"},
    "half a JSON": {"text": '{"metadata": {"id'},
    "nothing": {"text": ""},
    "a list for an object": {"data": []},
    "500": {"status": 500},
    "503": {"status": 503, "headers": {"Retry-After": "0"}},
    "429": {"status": 429, "headers": {"Retry-After": "0"}},
    "after the timeout": {"delay_s": 1.5},
}
LOOKS = "/(jobs/[^/]+|replicas|logs|trainings/[^/]+|pods|clusters|workloads/[^/]+)$"
"""The routes by which a job and its log are looked at."""


@pytest.fixture(autouse=True)
def short_answers(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, impatient: None
) -> None:
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and "delay_s" in callspec.params.get("fault", {}):
        monkeypatch.setattr(http, "ANSWER_S", 1.0)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_submission_that_goes_wrong_makes_one_job(
    cloud: Cloud, fault: dict[str, Any]
) -> None:
    cloud.service.fault("POST", cloud.create, **fault)
    plan = cloud.place.plan("echo once")
    backend, handle = await submit(cloud.place, plan)
    assert cloud.place.jobs_of(plan) == 1
    assert (await backend.submit(backend.render(plan))).job_id == handle.job_id
    assert texts(await lines_of(backend, handle)) == ["once", "tunedeck: exit=0"]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_looks_that_go_wrong_lose_no_line_and_double_none(
    cloud: Cloud, fault: dict[str, Any]
) -> None:
    plan = cloud.place.plan("for i in $(seq 1 40); do echo $i; sleep 0.02; done; exit 7")
    backend, handle = await submit(cloud.place, plan)
    for skip in (0, 1, 3):
        cloud.service.fault("GET", LOOKS, skip=skip, **fault)
    entries = await lines_of(backend, handle)
    assert texts(entries) == [*map(str, range(1, 41)), "tunedeck: exit=7"]
    cloud.service.fault("GET", LOOKS, **fault)
    status = await backend.status(handle)
    assert (status.state, status.exit_code) == (RunState.FAILED, 7)


async def test_a_list_that_lags_behind_makes_no_second_job(cloud: Cloud) -> None:
    plan = cloud.place.plan("echo once")
    empty: dict[str, list[Any]] = {"jobs": [], "workloads": []}
    cloud.service.fault("POST", cloud.create, lost=True)
    cloud.service.fault("GET", "/(jobs|workloads)$", data=empty, times=4)
    backend, handle = await submit(cloud.place, plan)
    assert [r.reply for r in cloud.service.sent("POST", cloud.create)][1:] == [409]
    assert cloud.place.jobs_of(plan) == 1
    assert texts(await lines_of(backend, handle)) == ["once", "tunedeck: exit=0"]


async def test_a_service_that_stays_away_is_said_so(cloud: Cloud) -> None:
    cloud.service.fault("GET", "/(jobs|workloads)$", status=503, times=50)
    with pytest.raises(ReachError, match="503") as refused:
        await submit(cloud.place, cloud.place.plan("true"))
    assert refused.value.exit_code is ExitCode.CONNECTION


async def test_what_the_service_refuses_is_sent_once_and_told_in_its_words(cloud: Cloud) -> None:
    cloud.service.fault("POST", cloud.create, status=400)
    with pytest.raises(UsageError, match="injected") as refused:
        await submit(cloud.place, cloud.place.plan("true"))
    assert refused.value.exit_code is ExitCode.USAGE
    assert len(cloud.service.sent("POST", cloud.create)) == 1


async def test_a_launcher_that_was_not_answered_is_told_later_what_became_of_it(
    cloud: Cloud,
) -> None:
    plan = cloud.place.plan("echo there")
    backend, registry = cloud.place.backend(plan), Registry()
    cloud.service.fault("POST", cloud.create, lost=True)
    cloud.service.fault("GET", "/(jobs|workloads)$", status=500, skip=1, times=99)
    with pytest.raises(ReachError):
        await launch(plan, backend.render(plan), backend, registry)
    record = registry.get(plan.run_id)
    assert (record.state, record.word) == (RunState.SUBMITTING, GIVEN_UP)
    with pytest.raises(ReachError):
        await look(record, cloud.place.backend(plan), registry)
    cloud.service.faults.clear()
    assert record.launcher is not None
    dead = replace(record, word="", launcher={**record.launcher, "started": "0"})
    for left in (dead, record):
        found = await look(left, cloud.place.backend(plan), registry)
        assert found.job_id is not None
    assert cloud.place.jobs_of(plan) == 1


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_a_clock_that_is_wrong_loses_no_line(cloud: Cloud, skew: float) -> None:
    cloud.service.skew_s = skew
    late = formatdate(time.time() + skew, usegmt=True)  # now, as the service has it
    cloud.service.fault("GET", LOOKS, status=429, headers={"Retry-After": late})
    backend, handle = await submit(cloud.place, cloud.place.plan("seq 1 20"))
    entries = await lines_of(backend, handle)
    assert texts(entries) == [*map(str, range(1, 21)), "tunedeck: exit=0"]
    rest = texts(await lines_of(backend, handle, entries[7].cursor))
    assert rest == texts(entries)[8:]


async def test_pages_that_are_empty_are_not_the_end(cloud: Cloud) -> None:
    launch = Launch("command", "x", ("sft",), nodes=2)
    backend, handle = await submit(cloud.place, cloud.place.plan("echo a; sleep 1", launch=launch))
    empty = {"pods": []} if cloud.envs != "envs" else []
    cloud.service.fault("GET", "/(pods|replicas)$", data=empty, times=2)
    lines = texts(await lines_of(backend, handle))
    assert sorted(lines) == [
        "[1] a", "[1] tunedeck: exit=0", "a", "tunedeck: exit=0",
    ]  # fmt: skip


async def test_cancelling_is_confirmed_over_faults(cloud: Cloud) -> None:
    backend, handle = await submit(cloud.place, cloud.place.plan("sleep 600"))
    cloud.service.fault("PATCH", "/jobs/", status=502)
    cloud.service.fault("POST", "/suspend$", status=502)
    cloud.service.fault("GET", LOOKS, lost=True, skip=1)
    assert (await backend.cancel(handle)).state is RunState.CANCELLED
    assert cloud.service.sent("DELETE", "") == []
    assert (await backend.cancel(handle)).state is RunState.CANCELLED
