"""Hugging Face Jobs through huggingface_hub, against a Hub that goes wrong on demand."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from tests.system.clouds.hf import TOKEN, FakeHub, HFJob
from tests.system.places import HFPlace, plan_for
from tunedeck.core.backends.base import Handle, LogLine
from tunedeck.core.backends.hf import client
from tunedeck.core.backends.hf.backend import HFJobsBackend
from tunedeck.core.backends.hf.client import Hub
from tunedeck.core.errors import ExitCode, NotFoundError, TunedeckError
from tunedeck.core.plan import Plan, SecretRef
from tunedeck.core.runs.adopt import adopt
from tunedeck.core.runs.fetch import fetch
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState

pytestmark = pytest.mark.slow

LIMIT_S = 120.0
CANARY = "canary-3f9c1e77d2"


def twice() -> dict[str, int]:
    """The key that has a job tried twice, where the installed library can ask for that."""
    return {"attempts": 2} if Hub().knows("run_job", "attempts") else {}


def backend_of(plan: Plan) -> HFJobsBackend:
    return HFJobsBackend(dict(plan.profile_values))


async def submit(plan: Plan) -> tuple[HFJobsBackend, Handle]:
    backend = backend_of(plan)
    return backend, await backend.submit(backend.render(plan))


async def ended(hub: FakeHub, handle: Handle) -> HFJob:
    job = hub.jobs[handle.job_id]
    assert await asyncio.to_thread(job.run.wait, LIMIT_S)
    return job


async def lines_of(backend: HFJobsBackend, handle: Handle, cursor: str | None = None) -> list[str]:
    async with asyncio.timeout(LIMIT_S):
        told = backend.logs(handle, cursor, follow=True)
        return [entry.line.decode() async for entry in told]


async def refused(plan: Plan) -> TunedeckError:
    backend = backend_of(plan)
    with pytest.raises(TunedeckError) as raised:
        await backend.submit(backend.render(plan))
    return raised.value


async def test_what_is_sent_is_what_the_preview_shows(
    hub: FakeHub, place: HFPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", CANARY)
    secrets = (SecretRef("WANDB_API_KEY", "MY_TOKEN"),)
    plan = plan_for({**place.values, **twice()}, "true", secrets=secrets, env={"A": "b"})
    submission = backend_of(plan).render(plan)
    await backend_of(plan).submit(submission)
    (request,) = hub.sent("POST", "/api/jobs/ada$")
    sent, shown = request.json(), json.loads(json.dumps(submission.to_json()["payload"]))["job"]
    assert sent.pop("secrets") == {"WANDB_API_KEY": CANARY}
    assert shown.pop("secrets") == {"WANDB_API_KEY": "********"}
    assert sent == shown
    assert request.headers["user-agent"].startswith("tunedeck/")


async def test_a_secret_is_in_the_field_for_secrets_and_nowhere_else(
    hub: FakeHub, place: HFPlace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path
) -> None:
    monkeypatch.setenv("MY_TOKEN", CANARY)
    plan = plan_for(
        place.values,
        f'[ "$MY_TOKEN" = {CANARY[:6]}"{CANARY[6:]}" ] && echo the same',
        secrets=(SecretRef("MY_TOKEN", "MY_TOKEN"),),
    )
    backend, handle = await submit(plan)
    assert "the same" in await lines_of(backend, handle)
    for request in hub.requests:
        body = request.body
        if request.method == "POST" and request.path == "/api/jobs/ada":
            body = json.dumps({**request.json(), "secrets": {}}).encode()
        assert CANARY.encode() not in body + json.dumps(request.query).encode()
    assert CANARY not in json.dumps([job.told() for job in hub.jobs.values()])
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in json.dumps(backend.render(plan).to_json())


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 500},
        {"lost": True},
        {"text": '{"id": "half'},
        {"data": {"id": 3}},
        {"status": 429, "times": 3},
    ],
    ids=["429", "500", "lost answer", "half an answer", "another answer", "429 thrice"],
)
async def test_whatever_happens_to_the_answer_there_is_one_job(
    hub: FakeHub, place: HFPlace, fault: dict[str, Any]
) -> None:
    hub.fault("POST", "/api/jobs/ada$", **fault)
    plan = place.plan("true")
    _, handle = await submit(plan)
    assert place.jobs_of(plan) == 1
    assert list(hub.jobs) == [handle.job_id]
    assert (await ended(hub, handle)).run.exit_code == 0


async def test_retry_after_is_waited_for_by_the_service_s_clock(
    hub: FakeHub, place: HFPlace
) -> None:
    hub.skew_s = 86400
    moment = formatdate(time.time() + 86400 + 2, usegmt=True)
    hub.fault("POST", "/api/jobs/ada$", status=429, headers={"Retry-After": moment})
    began = time.monotonic()
    await submit(place.plan("true"))
    assert 0.5 < time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": 500, "times": 99}, ExitCode.CONNECTION),
        ({"status": 429, "times": 99}, ExitCode.CONNECTION),
        ({"status": 401}, ExitCode.AUTHENTICATION),
        ({"status": 403}, ExitCode.AUTHENTICATION),
        ({"status": 400}, ExitCode.USAGE),
    ],
    ids=["500", "429", "401", "403", "400"],
)
async def test_what_does_not_pass_is_one_clear_error(
    hub: FakeHub, place: HFPlace, fault: dict[str, Any], code: ExitCode
) -> None:
    hub.fault("POST", "/api/jobs/ada$", **fault)
    error = await refused(place.plan("true"))
    assert error.exit_code is code
    assert "Hugging Face" in str(error)
    assert not hub.jobs


async def test_a_service_that_is_away_or_a_token_that_is_wrong_is_told(
    hub: FakeHub, place: HFPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 6)
    assert (await refused(place.plan("true"))).exit_code is ExitCode.AUTHENTICATION
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    plan = place.plan("true")
    with pytest.raises(TunedeckError) as raised:
        await backend_of(plan).preflight(plan)
    assert raised.value.exit_code is ExitCode.CONNECTION
    assert "HF_ENDPOINT" in raised.value.fix


async def test_asked_to_stay_offline_it_says_so(
    hub: FakeHub, place: HFPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    error = await refused(place.plan("true"))
    assert error.exit_code is ExitCode.CONNECTION
    assert "HF_HUB_OFFLINE" in str(error)


async def test_the_code_is_uploaded_once(hub: FakeHub, place: HFPlace) -> None:
    await submit(place.plan("true"))
    first = len(hub.sent("POST", "/batch$"))
    plan = place.plan("true")
    await submit(plan)
    later = [r.body.decode() for r in hub.sent("POST", "/batch$")[first:]]
    assert [json.loads(line)["path"] for body in later for line in body.splitlines()] == [
        f"{plan.run_id}/plan.json"
    ]


async def test_the_log_is_whole_over_streams_cut_anywhere(hub: FakeHub, place: HFPlace) -> None:
    plan = place.plan("for i in $(seq 1 50); do echo line $i; done; sleep 1")
    for cut in (1, 137, 600, 1100, 2500):
        hub.fault("GET", "/logs$", cut_after=cut)
    backend, handle = await submit(plan)
    expected = [*(f"line {n}" for n in range(1, 51)), "tunedeck: exit=0"]
    assert await lines_of(backend, handle) == expected
    assert len(hub.sent("GET", "/logs$")) >= 5


async def test_a_token_that_expires_in_mid_stream_is_told_and_the_log_goes_on_after_it(
    hub: FakeHub, place: HFPlace, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    plan = place.plan(f"echo one; while [ ! -e {go} ]; do sleep 0.1; done; echo two")
    backend, handle = await submit(plan)
    told: list[LogLine] = []
    with pytest.raises(TunedeckError) as raised:
        async with asyncio.timeout(LIMIT_S):
            async for entry in backend.logs(handle, None, follow=True):
                told.append(entry)
                hub.expired.add(TOKEN)
    assert raised.value.exit_code is ExitCode.AUTHENTICATION
    hub.expired.clear()
    go.touch()
    rest = await lines_of(backend, handle, told[-1].cursor)
    assert [*(entry.line.decode() for entry in told), *rest] == ["one", "two", "tunedeck: exit=0"]


async def test_a_stream_that_does_not_end_with_its_job_is_left(
    hub: FakeHub, place: HFPlace
) -> None:
    hub.stuck = True
    backend, handle = await submit(place.plan("echo said"))
    assert await lines_of(backend, handle) == ["said", "tunedeck: exit=0"]


async def test_the_exit_code_is_read_from_the_log_where_the_service_is_silent(
    hub: FakeHub, place: HFPlace
) -> None:
    backend, handle = await submit(place.plan("exit 9"))
    (await ended(hub, handle)).message = "something went wrong"
    status = await backend.status(handle)
    assert (status.state, status.exit_code, status.word) == (RunState.FAILED, 9, "ERROR")
    assert "something went wrong" in status.reason


async def test_a_job_that_is_gone_is_lost_and_one_of_others_is_none_of_ours(
    hub: FakeHub, place: HFPlace
) -> None:
    backend, handle = await submit(place.plan("true"))
    await ended(hub, handle)
    hub.jobs[handle.job_id].spec["labels"] = {}
    with pytest.raises(NotFoundError, match="no run of Tunedeck"):
        await backend.adopt(handle.job_id)
    del hub.jobs[handle.job_id]
    assert (await backend.status(handle)).state is RunState.LOST


async def test_files_come_home_also_those_that_latest_names(
    hub: FakeHub, place: HFPlace, home: Path
) -> None:
    plan = place.plan(
        "mkdir -p $TUNEDECK_RUN_DIR/checkpoints/step_000002; cd $TUNEDECK_RUN_DIR;"
        " echo weights > checkpoints/step_000002/adapter_model.safetensors;"
        " ln -s step_000002 checkpoints/latest; echo '{}' > result.json"
    )
    backend, handle = await submit(plan)
    await ended(hub, handle)
    registry = Registry()
    registry.add(RunRecord.of(plan, forced=False))
    record = registry.update(plan.run_id, handle=handle)
    brought = await fetch(record, backend, None, lambda *_: None)
    names = {path.relative_to(record.run_dir).as_posix() for path in brought}
    assert {"result.json", "checkpoints/latest/adapter_model.safetensors"} <= names
    file = record.run_dir / "checkpoints" / "latest" / "adapter_model.safetensors"
    assert file.read_text() == "weights\n"


async def test_results_are_uploaded_to_a_repository_before_the_job_ends(
    hub: FakeHub, place: HFPlace
) -> None:
    values = {**place.values, "output_repo": "ada/results"}
    command = "echo '{}' > $TUNEDECK_RUN_DIR/result.json; mkdir -p $TUNEDECK_RUN_DIR/checkpoints"
    plan = plan_for(
        values,
        f"{command}/step_000002; echo w > $TUNEDECK_RUN_DIR/checkpoints/step_000002/w",
        secrets=(SecretRef("HF_TOKEN", "HF_TOKEN"),),
        env={"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"},
    )
    backend, handle = await submit(plan)
    lines = await lines_of(backend, handle)
    assert lines[-1] == "tunedeck: exit=0", lines
    there = hub.repository("ada/results") / plan.run_id
    assert (there / "checkpoints" / "step_000002" / "w").read_text() == "w\n"
    assert (there / "result.json").exists()

    hub.fault("POST", "/commit/main", status=403)
    plan = plan_for(values, "true", secrets=plan.secrets, env=plan.env)
    backend, handle = await submit(plan)
    lines = await lines_of(backend, handle)
    assert any("could not be uploaded to ada/results" in line for line in lines)
    assert lines[-1] == "tunedeck: exit=1"


async def test_a_run_of_another_machine_is_attached_to_by_its_job(
    hub: FakeHub, place: HFPlace, home: Path
) -> None:
    plan = place.plan("true")
    backend, handle = await submit(plan)
    await ended(hub, handle)
    record = await adopt(backend, "mine", dict(plan.profile_values), handle.job_id, Registry())
    assert (record.run_id, record.state) == (plan.run_id, RunState.SUCCEEDED)


async def test_flavors_prices_and_jobs_are_as_the_service_has_them(
    hub: FakeHub, place: HFPlace, tmp_path: Path
) -> None:
    hub.held = True
    plan = plan_for({**place.values, "flavor": "a10g-largex2", **twice()}, "true")
    backend, handle = await submit(plan)
    found = await backend.inventory(dict(plan.profile_values))
    flavors = {flavor["name"]: flavor for flavor in found["flavors"]}
    assert (flavors["a10g-largex2"]["gpus"], flavors["cpu-basic"]["gpus"]) == (2, 0)
    assert flavors["a10g-largex2"]["usd_per_hour"] == 3.0
    (job,) = found["jobs"]
    assert (job["job_id"], job["run_id"], job["state"]) == (
        handle.job_id, plan.run_id, "SCHEDULING",
    )  # fmt: skip
    price = await backend.price(plan)
    assert price is not None
    assert price["at_most_usd"] == (3.0 if twice() else 1.5)  # half an hour, twice or once


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"flavor": "a10g-smal"}, "error", "Did you mean 'a10g-small'?"),
        ({"gpus": 4, "flavor": "a10g-small"}, "error", "asks for 4 GPUs; flavor"),
        ({"flavor": "a10g-small"}, "warning", "1 GPU, all paid for"),
        ({"namespace": "others"}, "error", "who is not in 'others'"),
        (
            {"volumes": [{"type": "bucket", "source": "ada/no", "mount_path": "/d",
                          "read_only": True}]},
            "error",
            "There is no bucket 'ada/no'",
        ),
        (
            {"volumes": [{"type": "model", "source": "ada/no", "mount_path": "/d"}]},
            "error",
            "There is no model 'ada/no'",
        ),
        ({}, "info", "will be made, private"),
    ],
    ids=["flavor", "few gpus", "idle gpus", "namespace", "bucket", "model", "own bucket"],
)  # fmt: skip
async def test_preflight_tells_what_the_service_would_refuse(
    hub: FakeHub, place: HFPlace, changes: dict[str, Any], severity: str, words: str
) -> None:
    from dataclasses import replace

    gpus = changes.pop("gpus", 0)
    plan = plan_for({**place.values, **changes}, "true")
    plan = replace(plan, launch=replace(plan.launch, gpus_per_node=gpus))
    found = await backend_of(plan).preflight(plan)
    assert [f for f in found if f.severity == severity and words in f.message], found
    assert not hub.jobs


async def test_preflight_has_no_objection_to_what_fits(hub: FakeHub, place: HFPlace) -> None:
    found = await backend_of(plan := place.plan("true")).preflight(plan)
    assert [finding for finding in found if finding.severity != "info"] == []


async def test_preflight_tells_a_permission_that_is_missing_from_a_mistake(
    hub: FakeHub, place: HFPlace
) -> None:
    hub.fault("GET", "/api/jobs/hardware$", status=403)
    found = await backend_of(plan := place.plan("true")).preflight(plan)
    errors = [finding for finding in found if finding.severity == "error"]
    assert [finding.exit_code for finding in errors] == [ExitCode.AUTHENTICATION]


async def test_preflight_with_a_refused_token_is_an_authentication_error(
    hub: FakeHub, place: HFPlace
) -> None:
    hub.expired.add(TOKEN)
    plan = place.plan("true")
    with pytest.raises(TunedeckError) as raised:
        await backend_of(plan).preflight(plan)
    assert raised.value.exit_code is ExitCode.AUTHENTICATION


@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 429, "headers": {"Retry-After": "0"}}, {"lost": True},
     {"text": '{"half'}, {"data": {"id": 3}}],
    ids=["500", "429", "lost answer", "half an answer", "another answer"],
)  # fmt: skip
async def test_a_status_that_is_asked_for_at_a_bad_moment_is_asked_for_again(
    hub: FakeHub, place: HFPlace, fault: dict[str, Any]
) -> None:
    backend, handle = await submit(place.plan("exit 7"))
    await ended(hub, handle)
    hub.fault("GET", f"/{handle.job_id}$", **fault)
    status = await backend.status(handle)
    assert (status.state, status.exit_code) == (RunState.FAILED, 7)


@pytest.mark.parametrize(
    "fault", [{"status": 500, "times": 99}, {"text": "<html>busy</html>", "times": 99}]
)
async def test_a_status_that_cannot_be_had_is_a_connection_that_failed(
    hub: FakeHub, place: HFPlace, fault: dict[str, Any]
) -> None:
    backend, handle = await submit(place.plan("true"))
    await ended(hub, handle)
    hub.fault("GET", f"/{handle.job_id}$", **fault)
    with pytest.raises(TunedeckError) as raised:
        await backend.status(handle)
    assert raised.value.exit_code is ExitCode.CONNECTION
    assert raised.value.fix
    assert "\n" not in raised.value.message


async def test_an_answer_that_comes_after_we_gave_up_waiting_makes_no_second_job(
    hub: FakeHub, place: HFPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER_S", 1.0)
    hub.fault("POST", "/api/jobs/ada$", delay_s=4)
    plan = place.plan("true")
    _, handle = await submit(plan)
    assert list(hub.jobs) == [handle.job_id]
    assert len(hub.sent("POST", "/api/jobs/ada$")) == 1


async def test_a_log_that_is_sent_twice_is_told_once_a_line(hub: FakeHub, place: HFPlace) -> None:
    """A stream that is cut begins with the first line again; the log has each line once."""
    plan = place.plan("for i in 1 2 3 4 5 6; do echo line $i; sleep 0.3; done")
    for cut in (300, 300, 450):
        hub.fault("GET", "/logs$", cut_after=cut)
    backend, handle = await submit(plan)
    told: list[LogLine] = []
    async with asyncio.timeout(LIMIT_S):
        async for entry in backend.logs(handle, None, follow=True):
            told.append(entry)
    assert [entry.line.decode() for entry in told] == [
        *(f"line {n}" for n in range(1, 7)), "tunedeck: exit=0",
    ]  # fmt: skip
    assert len({entry.cursor for entry in told}) == len(told)


async def test_attempts_that_the_library_cannot_ask_for_are_found_by_preflight(
    hub: FakeHub, place: HFPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "knows", lambda *_: False)
    plan = plan_for({**place.values, "attempts": 2}, "true")
    found = await backend_of(plan).preflight(plan)
    assert [f.key for f in found if "cannot ask for attempts" in f.message] == ["attempts"]


async def test_an_empty_page_and_pages_are_all_read(hub: FakeHub, place: HFPlace) -> None:
    plan = place.plan("true")
    backend = backend_of(plan)
    assert await backend.find(plan.run_id, plan.run_dir) is None
    handle = await backend.submit(backend.render(plan))
    hub.fault("GET", "/api/jobs/ada$", data=[])
    assert await backend.find(plan.run_id, plan.run_dir) is None
    found = await backend.find(plan.run_id, plan.run_dir)
    assert found is not None
    assert found == handle
