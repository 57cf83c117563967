"""Lepton and Run:ai: what is sent is what was previewed, and a job tells who finds it its plan."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.core.backends.cloud_runs import CANARY, lines_of, local_input, submit, texts
from tests.core.backends.conftest import Cloud
from tests.system.clouds.lepton_schema import GROUP_ID
from tests.system.clouds.runai_schema import CLUSTER_ID, PROJECT_ID
from tunedeck.core import locations
from tunedeck.core.backends.base import Settles
from tunedeck.core.backends.cloud import parcel
from tunedeck.core.errors import NotFoundError, ReachError, UsageError
from tunedeck.core.plan import Launch, Plan, SecretRef
from tunedeck.core.runs.adopt import TellsPlans, adopt
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState

_DESCRIPTION = re.compile(r"<(\d+) characters, sha256:([0-9a-f]{64})>")
SECRETS = (SecretRef("HF_TOKEN", "HF_TOKEN"), SecretRef("NOBODYS_TOKEN", "NOBODYS_TOKEN"))


def with_everything(cloud: Cloud, tmp_path: Path, nodes: int) -> Plan:
    source = tmp_path / "data.jsonl"
    source.write_text("{}\n" * 100)
    return cloud.place.plan(
        "echo $A",
        env={"A": "1"},
        secrets=SECRETS,
        inputs=(local_input(source),),
        config={"dataset": {"path_or_dataset_id": str(source)}},
        launch=Launch("command", "tunedeck.trainer", ("sft",), nodes=nodes),
    )


def body_in(payload: Any) -> dict[str, Any]:
    """The request's body in a preview, as its JSON has it."""
    key = "job" if "job" in payload else "workload"
    found: dict[str, Any] = json.loads(json.dumps(payload))[key]
    return found


@pytest.mark.parametrize("nodes", [1, 2])
async def test_what_is_sent_is_what_was_previewed(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    plan = with_everything(cloud, tmp_path, nodes)
    backend = cloud.place.backend(plan)
    assert isinstance(backend, Settles)
    previewed = await backend.settle(backend.render(plan))
    shown = body_in(previewed.to_json()["payload"])
    await backend.submit(previewed)
    (sent,) = cloud.sent()

    # The named differences: values that were shown by their digest, a secret that is nowhere, and
    # on Run:ai what Kubernetes calls a credential.
    expected = copy.deepcopy(shown)
    values = {env["name"]: env for env in sent["spec"][cloud.envs]}
    kept = [env for env in expected["spec"][cloud.envs] if env["name"] != "NOBODYS_TOKEN"]
    parcels = [env for env in kept if env["name"].startswith("TUNEDECK_PARCEL_")]
    assert parcels
    for env in parcels:
        size, digest = _described(env["value"])
        env["value"] = values[env["name"]]["value"]
        assert (len(env["value"]), hashlib.sha256(env["value"].encode()).hexdigest()) == (
            size,
            digest,
        )
    for env in kept:
        if "secret" in env:
            assert env["secret"]["name"] == "tunedeck-hf-token"
            env["secret"]["name"] = "genericsecret-tunedeck-hf-token"
    expected["spec"][cloud.envs] = kept
    assert sent == expected
    assert CANARY not in json.dumps(sent)


def _described(value: str) -> tuple[int, str]:
    match = _DESCRIPTION.fullmatch(value)
    assert match
    return int(match[1]), match[2]


async def test_settled_it_differs_from_the_offline_preview_in_the_ids_alone(
    cloud: Cloud, tmp_path: Path
) -> None:
    plan = with_everything(cloud, tmp_path, 1)
    backend = cloud.place.backend(plan)
    assert isinstance(backend, Settles)
    offline = backend.render(plan)
    assert cloud.service.requests == []
    settled = body_in((await backend.settle(offline)).payload)
    before = body_in(offline.payload)
    if "projectId" in settled:
        ids = {"projectId": str(PROJECT_ID), "clusterId": CLUSTER_ID}
        assert before["projectId"] == "<id of project nlp>"
        assert settled == {**before, **ids}
    else:
        before["spec"]["affinity"]["allowed_dedicated_node_groups"] = [GROUP_ID]
        assert settled == before
    assert cloud.sent() == []


async def test_without_the_network_the_preview_has_the_names(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunedeck.core import prepare

    plan = with_everything(cloud, tmp_path, 1)
    backend = cloud.place.backend(plan)
    submission = backend.render(plan)
    cloud.service.fault("GET", "/(dedicated-node-groups|projects)$", status=503, times=50)
    assert isinstance(backend, Settles)
    with pytest.raises(ReachError):
        await backend.settle(submission)
    assert await prepare._settled(backend, submission) is submission


async def test_an_input_that_changed_after_the_preview_is_not_sent(
    cloud: Cloud, tmp_path: Path
) -> None:
    plan = with_everything(cloud, tmp_path, 1)
    backend = cloud.place.backend(plan)
    submission = backend.render(plan)
    (tmp_path / "data.jsonl").write_text("other\n")
    with pytest.raises(UsageError, match="changed since"):
        await backend.submit(submission)
    assert cloud.sent() == []


def test_a_parcel_that_is_not_the_one_that_was_shown_is_refused() -> None:
    shown = parcel.described(parcel.variables(b"one"))
    assert parcel.filled(shown, parcel.variables(b"one")) == [
        {"name": "TUNEDECK_PARCEL_000", "value": "b25l"}
    ]
    with pytest.raises(UsageError, match="changed since"):
        parcel.filled(shown, parcel.variables(b"two"))


# A job that another machine started.


async def test_another_machine_attaches_by_the_jobs_id(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = cloud.place.plan("echo theirs; exit 7")
    _, handle = await submit(cloud.place, plan)
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "another machine"))
    backend = cloud.place.backend(plan)
    assert isinstance(backend, TellsPlans)
    values = dict(plan.profile_values)
    for known_as in {handle.job_id, handle.data.get("name", handle.job_id)}:
        record = await adopt(backend, "mine", values, known_as, Registry())
        assert (record.run_id, record.job_id) == (plan.run_id, handle.job_id)
        assert record.run_dir == locations.run_dir(plan.run_id)
        assert record.plan["config_values"] == plan.to_json()["config_values"]
        assert record.backend_handle is not None
        assert record.backend_handle.data == handle.data
    found = record.backend_handle
    assert found is not None
    lines = await lines_of(backend, found)
    assert texts(lines) == ["theirs", "tunedeck: exit=7"]
    status = await backend.status(found)
    assert (status.state, status.exit_code) == (RunState.FAILED, 7)
    kept = cloud.storage() / plan.run_id / "plan.json"
    assert json.loads(kept.read_text())["run_id"] == plan.run_id


@pytest.mark.parametrize("wanted", ["nobodys-job", "1f2b7c52-3a55-4a32-8f3e-6a0a6b0c7d11"])
async def test_a_job_that_is_not_there_cannot_be_attached_to(cloud: Cloud, wanted: str) -> None:
    backend = cloud.place.backend(cloud.place.plan("true"))
    assert isinstance(backend, TellsPlans)
    with pytest.raises(NotFoundError, match="not there") as refused:
        await backend.adopt(wanted)
    assert "tunedeck queue" in refused.value.fix


async def test_a_job_that_is_no_run_of_ours_cannot_be_attached_to(cloud: Cloud) -> None:
    plan = cloud.place.plan("true", held=True)
    backend, handle = await submit(cloud.place, plan)
    jobs: Any = getattr(cloud.service, "jobs", None) or getattr(cloud.service, "workloads", None)
    (job,) = jobs.values()
    spec = job.body["spec"] if hasattr(job, "body") else job.spec
    spec[cloud.envs] = [{"name": "TUNEDECK_PLAN", "value": "bm90IGEgcGxhbg=="}]
    assert isinstance(backend, TellsPlans)
    with pytest.raises(NotFoundError, match="no plan of Tunedeck's"):
        await backend.adopt(handle.job_id)
