"""Run:ai: the workload that a plan becomes, and what becomes of it when the service misbehaves."""

from __future__ import annotations

import json
import logging
import os
import shlex
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.core.backends.cloud_runs import CANARY, lines_of, local_input, submit, texts
from tests.system.clouds.runai import FakeRunAI
from tests.system.clouds.runai_place import RunAIPlace
from tests.system.clouds.runai_schema import CLAIM, CLUSTER_ID, PROJECT_ID, SECRET
from tunedeck.core.backends.base import TellsInventory
from tunedeck.core.errors import AuthenticationError, UsageError
from tunedeck.core.plan import Launch, Plan, SecretRef, new_run_id
from tunedeck.core.states import RunState


@pytest.fixture
def place(runai_place: RunAIPlace) -> RunAIPlace:
    return runai_place


def payload_of(place: RunAIPlace, plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(place.backend(plan).render(plan).payload))
    return found


# What a plan becomes.


def test_every_key_of_the_profile_has_its_field(place: RunAIPlace) -> None:
    place.values |= {
        "image_pull_secrets": "registry",
        "node_pools": ["h100", "default"],
        "priority_class": "train",
        "preemptibility": "preemptible",
        "max_requeues": 2,
        "custom_spec": {"compute": {"cpuMemoryRequest": "16G"}, "labels": [{"name": "team"}]},
        "startup_commands": ["echo at start"],
        "time": "01:00:00",
    }
    launch = Launch("command", "tunedeck.trainer", ("sft",), gpus_per_node=8)
    plan = place.plan(
        "true",
        env={"A": "1"},
        secrets=(SecretRef("KEY", "team/key", True), SecretRef("HF_TOKEN", "HF_TOKEN")),
        launch=launch,
    )
    payload = payload_of(place, plan)
    body = payload["workload"]
    start = body["spec"]["environmentVariables"].pop(0)
    assert start["name"] == "TUNEDECK_START"
    assert "echo at start" in start["value"]
    assert "TUNEDECK_DEADLINE=$((started_at + 3" in start["value"]
    told = [env for env in body["spec"]["environmentVariables"] if env["name"].startswith("TUNE")]
    assert told[0]["name"] == "TUNEDECK_PLAN"
    del body["spec"]["environmentVariables"][-len(told) :]
    (wrapper,) = shlex.split(body["spec"].pop("args"))
    assert "tee -a" in wrapper
    assert payload["kind"] == "trainings"
    assert body == {
        "name": f"scenario-{plan.run_id}",
        "projectId": "<id of project nlp>",
        "clusterId": "<id of its cluster>",
        "spec": {
            "command": "bash -c",
            "image": "python:3.12",
            "compute": {
                "gpuDevicesRequest": 8,
                "largeShmRequest": True,
                "cpuMemoryRequest": "16G",
            },
            "storage": {
                "pvc": [
                    {
                        "path": "/workspace",
                        "existingPvc": True,
                        "claimName": CLAIM,
                        "readOnly": False,
                    }
                ]
            },
            "environmentVariables": [
                {"name": "A", "value": "1"},
                {"name": "KEY", "secret": {"name": "team", "key": "key"}},
                {"name": "HF_TOKEN", "secret": {"name": "tunedeck-hf-token", "key": "HF_TOKEN"}},
            ],
            "backoffLimit": 2,
            "imagePullSecrets": [{"name": "registry"}],
            "nodePools": ["h100", "default"],
            "priorityClass": "train",
            "preemptibility": "preemptible",
            "labels": [{"name": "team"}],
        },
    }


def test_a_run_is_tried_once_unless_more_is_asked_for(place: RunAIPlace) -> None:
    payload = payload_of(place, place.plan("true"))
    assert payload["workload"]["spec"]["backoffLimit"] == 0


def test_of_several_nodes_one_is_the_master(place: RunAIPlace) -> None:
    launch = Launch("command", "tunedeck.trainer", ("sft",), nodes=4)
    payload = payload_of(place, place.plan("true", launch=launch))
    assert payload["kind"] == "distributed"
    assert payload["workload"]["masterSpecSameAsWorker"] is True
    spec = payload["workload"]["spec"]
    assert (spec["distributedFramework"], spec["numWorkers"]) == ("PyTorch", 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pvc_nemo_run_dir": "/elsewhere"}, "no mount of the profile holds"),
        ({"container_image": None}, "no container_image"),
        ({"pvc_nemo_run_dir": None}, "names no folder for runs"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    place: RunAIPlace, change: dict[str, Any], words: str
) -> None:
    place.values |= change
    plan = place.plan("true")
    with pytest.raises(UsageError, match=words) as refused:
        place.backend(plan).render(plan)
    assert refused.value.fix


def test_rendering_asks_nobody(place: RunAIPlace, runai: FakeRunAI) -> None:
    plan = place.plan("true")
    backend = place.backend(plan)
    assert backend.render(plan).to_json() == backend.render(plan).to_json()
    assert runai.requests == []


# Sending it.


async def test_secrets_are_sent_to_their_fields_alone_and_nothing_is_logged(
    place: RunAIPlace,
    runai: FakeRunAI,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    plan = place.plan("echo $HF_TOKEN | wc -c", secrets=(SecretRef("HF_TOKEN", "HF_TOKEN"),))
    backend = place.backend(plan)
    submission = backend.render(plan)
    handle = await backend.submit(submission)
    assert texts(await lines_of(backend, handle))[0] == str(len(CANARY) + 1)
    told = [caplog.text, *capfd.readouterr(), json.dumps(submission.to_json())]
    told += [json.dumps(handle.data), json.dumps(plan.to_json())]
    for secret, route in ((CANARY, "generic-secret"), (SECRET, "token")):
        with_it = [r.path.rpartition("/")[2] for r in runai.requests if secret.encode() in r.body]
        assert set(with_it) == {route}
        assert not [text for text in told if secret in text]
        files = [path for path in home.rglob("*") if path.is_file()]
        assert not [path for path in files if secret.encode() in path.read_bytes()]


async def test_project_and_cluster_are_found_by_name(place: RunAIPlace, runai: FakeRunAI) -> None:
    await submit(place, place.plan("true"))
    (request,) = runai.sent("POST", "/workloads/trainings$")
    body = request.json()
    assert (body["projectId"], body["clusterId"]) == (str(PROJECT_ID), CLUSTER_ID)
    place.values["project_name"] = "nlq"
    with pytest.raises(UsageError, match="Did you mean 'nlp'"):
        await submit(place, place.plan("true"))


@pytest.mark.parametrize("secret", ["", "wrong"])
async def test_a_credential_that_is_refused_is_an_error_of_authentication(
    place: RunAIPlace, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("DGXCLOUD_CLIENT_SECRET", secret)
    with pytest.raises(AuthenticationError) as refused:
        await submit(place, place.plan("true"))
    assert refused.value.fix
    assert "wrong" not in str(refused.value)


async def test_a_refusal_by_400_is_one_of_the_credential_too(
    place: RunAIPlace, runai: FakeRunAI
) -> None:
    """The only refusal that the OpenAPI document has for the token's route."""
    runai.fault("POST", "/token$", status=400, times=9)
    with pytest.raises(AuthenticationError, match="injected") as refused:
        await submit(place, place.plan("true"))
    assert "client_id" in refused.value.fix


async def test_the_older_names_of_the_credential_serve_as_well(
    place: RunAIPlace, runai: FakeRunAI
) -> None:
    values = place.values
    values |= {"app_id": values.pop("client_id"), "app_secret": values.pop("client_secret")}
    await submit(place, place.plan("true"))
    assert runai.sent("POST", "/token$")[0].json()["grantType"] == "app_token"


async def test_a_token_that_has_expired_is_renewed(place: RunAIPlace, runai: FakeRunAI) -> None:
    backend, handle = await submit(place, place.plan("true"))
    runai.expire()
    assert (await backend.status(handle)).word
    assert len(runai.sent("POST", "/token$")) == 2


@pytest.mark.slow
async def test_an_input_too_large_for_one_job_goes_ahead_in_several(
    place: RunAIPlace, runai: FakeRunAI, tmp_path: Path
) -> None:
    source = tmp_path / "data.bin"
    source.write_bytes(os.urandom(1_300_000))
    plan = place.plan(
        "sha256sum < \"$(sed -n 's/^ *path_or_dataset_id: //p' {config})\"",
        inputs=(local_input(source),),
        config={"dataset": {"path_or_dataset_id": str(source)}},
    )
    runai.fault("POST", "/workloads/trainings$", lost=True)
    backend, handle = await submit(place, plan)
    digest = plan.inputs[0].digest.removeprefix("sha256:")
    assert texts(await lines_of(backend, handle))[0].split()[0] == digest
    carriers = [w for w in runai.workloads.values() if w.name.startswith("tunedeck-")]
    assert len(carriers) == 3
    await submit(place, replace(plan, run_id=new_run_id()))
    assert len(runai.workloads) == 3 + 2


# What becomes of it.


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
async def test_suspension_goes_by_the_route_of_the_kind(
    place: RunAIPlace, runai: FakeRunAI, nodes: int
) -> None:
    launch = Launch("command", "tunedeck.trainer", ("sft",), nodes=nodes)
    backend, handle = await submit(place, place.plan("echo up; sleep 60", launch=launch))
    async with aclosing(backend.logs(handle, None, follow=True)) as lines:
        assert (await anext(lines)).line == b"up"
    assert (await backend.cancel(handle)).state is RunState.CANCELLED
    kind = "trainings" if nodes == 1 else "distributed"
    (request,) = runai.sent("POST", "/suspend$")
    assert request.path == f"/api/v1/workloads/{kind}/{handle.job_id}/suspend"
    assert runai.sent("DELETE", "") == []


async def test_a_suspension_whose_answer_is_lost_is_asked_for_again(
    place: RunAIPlace, runai: FakeRunAI
) -> None:
    runai.fault("POST", "/suspend$", lost=True)
    runai.held = True
    plan = place.plan("true", held=True)
    backend, handle = await submit(place, plan)
    status = await backend.status(handle)
    assert (status.state, status.word) == (RunState.QUEUED, "Pending")
    assert status.reason == "Not enough resources in the node pool"
    assert (await backend.cancel(handle)).state is RunState.CANCELLED


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        ("Pending", RunState.QUEUED),
        ("Creating", RunState.STARTING),
        ("Initializing", RunState.STARTING),
        ("Resuming", RunState.STARTING),
        ("Running", RunState.RUNNING),
        ("Updating", RunState.RUNNING),
        ("Degraded", RunState.RUNNING),
        ("Stopping", RunState.STOPPING),
        ("Terminating", RunState.STOPPING),
        ("Deleting", RunState.STOPPING),
        ("Stopped", RunState.CANCELLED),
        ("Completed", RunState.SUCCEEDED),
        ("Failed", RunState.FAILED),
        ("Unknown", RunState.RUNNING),
        ("SomethingNew", RunState.RUNNING),
    ],
)
def test_every_phase_of_theirs_has_a_state_of_ours(phase: str, state: RunState) -> None:
    from tunedeck.core.backends.dgxcloud.watch import status_from

    status = status_from({"actualPhase": phase})
    assert (status.state, status.word) == (state, phase)


async def test_a_workload_that_is_deleted_is_lost(place: RunAIPlace) -> None:
    backend, handle = await submit(place, place.plan("sleep 60"))
    await backend.forget(handle)  # type: ignore[attr-defined]
    assert (await backend.status(handle)).state is RunState.LOST


# Before it is sent.


async def findings(place: RunAIPlace, plan: Plan) -> dict[str, str]:
    found = await place.backend(plan).preflight(plan)
    return {f.key or "": f.message for f in found if f.severity != "info"}


async def test_a_sound_plan_has_no_complaint(place: RunAIPlace) -> None:
    assert await findings(place, place.plan("true")) == {}


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"project_name": "npl"}, "project_name", "Did you mean 'nlp'"),
        ({"node_pools": ["h10"]}, "node_pools", "Did you mean 'h100'"),
        (
            {"pvcs": [{"path": "/workspace", "claimName": "nlp-workspac"}]},
            "pvcs.0.claimName",
            "Did you mean 'nlp-workspace'",
        ),
    ],
)
async def test_preflight_names_what_the_tenant_does_not_have(
    place: RunAIPlace, change: dict[str, Any], key: str, words: str
) -> None:
    place.values |= change
    assert words in (await findings(place, place.plan("true")))[key]


async def test_preflight_looks_for_secrets_and_quota(place: RunAIPlace) -> None:
    launch = Launch("command", "tunedeck.trainer", ("sft",), nodes=2, gpus_per_node=8)
    secrets = (SecretRef("HF_TOKEN", "team/hf", True),)
    found = await findings(place, place.plan("true", launch=launch, secrets=secrets))
    assert "16 GPUs; project nlp is entitled to 8" in found["gpus_per_node"]
    assert "no secret 'team'" in found["secrets.HF_TOKEN"]


async def test_the_inventory_tells_projects_pools_and_workloads(
    place: RunAIPlace, runai: FakeRunAI
) -> None:
    plan = place.plan("true", held=True)
    backend, handle = await submit(place, plan)
    assert isinstance(backend, TellsInventory)
    found = await backend.inventory(dict(plan.profile_values))
    assert found["projects"] == [
        {"name": "nlp", "cluster": "dgx-eu", "gpus": 8.0, "gpus_allocated": 2.0}
    ]
    assert [row["name"] for row in found["node_pools"]] == ["default", "h100"]
    (job,) = found["jobs"]
    assert (job["job_id"], job["state"]) == (handle.job_id, "Pending")
