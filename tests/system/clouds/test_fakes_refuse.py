"""The fakes refuse what the real services refuse, so that a test which passes means something.

What is refused is what the official clients' types and validation know: leptonai's `api/v2/types`
and `job_validation.py`, and the OpenAPI models of runapy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.system.clouds.lepton import FakeLepton
from tests.system.clouds.lepton_schema import GROUP_ID, STORAGE, TOKEN
from tests.system.clouds.runai import FakeRunAI
from tests.system.clouds.runai_schema import CLAIM, CLIENT, CLUSTER_ID, PROJECT_ID, SECRET

JOB: dict[str, Any] = {
    "metadata": {"id": "a-job"},
    "spec": {
        "resource_shape": "cpu.small",
        "affinity": {"allowed_dedicated_node_groups": [GROUP_ID]},
        "container": {"image": "python:3.12", "command": ["true"]},
        "completions": 1,
        "parallelism": 1,
        "envs": [{"name": "A", "value": "1"}],
        "mounts": [{"path": "/users/ada", "from": STORAGE, "mount_path": "/mnt/workspace"}],
    },
}
WORKLOAD: dict[str, Any] = {
    "name": "a-workload",
    "projectId": str(PROJECT_ID),
    "clusterId": CLUSTER_ID,
    "spec": {
        "command": "true",
        "image": "python:3.12",
        "compute": {"gpuDevicesRequest": 0},
        "storage": {"pvc": [{"path": "/workspace", "existingPvc": True, "claimName": CLAIM}]},
        "environmentVariables": [{"name": "A", "value": "1"}],
        "backoffLimit": 0,
    },
}


@pytest.fixture(scope="module")
def lepton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    service = FakeLepton(tmp_path_factory.mktemp("lepton"))
    service.start()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=service.workspace_url, headers=headers) as client:
        yield client
    service.stop()
    assert service.errors == []


@pytest.fixture(scope="module")
def runai(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    service = FakeRunAI(tmp_path_factory.mktemp("runai"))
    service.start()
    with httpx.Client(base_url=service.base_url) as client:
        body = {"grantType": "client_credentials", "clientId": CLIENT, "clientSecret": SECRET}
        token = client.post("/token", json=body).json()["accessToken"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client
    service.stop()
    assert service.errors == []


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The body with one value set, by its dotted path."""
    result = copy.deepcopy(body)
    at: Any = result
    *folders, last = path.split(".")
    for name in folders:
        at = at[int(name)] if isinstance(at, list) else at[name]
    at[last] = value
    return result


def test_lepton_takes_the_body_that_the_refusals_are_changes_of(lepton: httpx.Client) -> None:
    assert lepton.post("/jobs", json=JOB).status_code == 201
    assert lepton.post("/jobs", json=JOB).status_code == 409


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("metadata.name2", "x", "unknown field"),
        ("spec.gpus", 8, "unknown field"),
        ("spec.container.cmd", [], "unknown field"),
        ("spec.envs.0.secret", "x", "unknown field"),
        ("spec.mounts.0.readonly", True, "unknown field"),
        ("spec.completions", "1", "cannot unmarshal"),
        ("spec.completions", True, "cannot unmarshal"),
        ("spec.completions", 0, "must be positive"),
        ("spec.intra_job_communication", 1, "cannot unmarshal"),
        ("spec.container.command", ["true", 1], "command"),
        ("spec.container.image", "", "image"),
        ("spec.envs.0.value", 1, "cannot unmarshal"),
        ("spec.envs.0.name", "1A", "invalid environment variable"),
        ("spec.envs.0.name", "LEPTON_JOB_NAME", "invalid environment variable"),
        ("spec.envs.0.value", "x" * ((128 << 10) + 1), "too long"),
        ("spec.envs.0.value_from", {"secret_name_ref": "nobodys"}, "not found"),
        ("metadata.id", "A-Job", "invalid job name"),
        ("metadata.id", "1job", "invalid job name"),
        ("metadata.id", "a" * 37, "invalid job name"),
        ("metadata.id", "a-job-", "invalid job name"),
        ("metadata.labels", {"run": "not a label!"}, "invalid label"),
        ("spec.resource_shape", "gpu.9xh100", "not found"),
        ("spec.affinity.allowed_dedicated_node_groups", ["h100-pool"], "not found"),
        ("spec.mounts.0.mount_path", "/usr/", "reserved"),
        ("spec.mounts.0.mount_path", "/", "reserved"),
        ("spec.mounts.0.from", None, "required"),
        ("spec.mounts.0.from", "node-nfs:other", "not found"),
        ("spec.queue_config", {"priority_class": "urgent"}, "invalid priority"),
    ],
)
def test_lepton_refuses_a_job(lepton: httpx.Client, path: str, value: Any, words: str) -> None:
    body = changed(changed(JOB, "metadata.id", "refused"), path, value)
    told = lepton.post("/jobs", json=body)
    assert told.status_code == 400
    assert words in told.json()["error"]
    listed = lepton.get("/jobs", params={"job_query_mode": "alive_and_archive"}).json()["jobs"]
    assert {job["metadata"]["id"] for job in listed} <= {"a-job"}


def test_lepton_wants_the_right_method_workspace_and_token(lepton: httpx.Client) -> None:
    lepton.post("/jobs", json=JOB)
    assert lepton.post("/jobs/a-job", json={"spec": {"stopped": True}}).status_code == 405
    assert lepton.put("/jobs/a-job", json={"spec": {"stopped": True}}).status_code == 405
    assert lepton.patch("/jobs/a-job", json={"spec": {"completions": 2}}).status_code == 400
    assert lepton.patch("/jobs/nobodys", json={"spec": {"stopped": True}}).status_code == 404
    assert lepton.post("/usersecrets", json={"name": "A", "value": "1"}).status_code == 400
    url = str(lepton.base_url).replace("nemo-lab", "other-lab")
    assert lepton.get(f"{url}shapes").status_code == 404
    assert lepton.get("/shapes", headers={"Authorization": "Bearer x"}).status_code == 401
    log: dict[str, str | int] = {"job": "a-job", "start": 1, "limit": 5000}
    assert lepton.get("/logs", params=log).status_code == 400
    assert lepton.get("/logs", params={**log, "end": 2, "limit": 10_001}).status_code == 400


def test_runai_takes_the_body_that_the_refusals_are_changes_of(runai: httpx.Client) -> None:
    assert runai.post("/workloads/trainings", json=WORKLOAD).status_code == 202
    assert runai.post("/workloads/trainings", json=WORKLOAD).status_code == 409


@pytest.mark.parametrize(
    ("path", "value", "status", "words"),
    [
        ("timeout", 1, 400, "timeout is not allowed"),
        ("spec.gpus", 8, 400, "gpus is not allowed"),
        ("spec.compute.gpus", 8, 400, "gpus is not allowed"),
        ("spec.storage.pvc.0.mount", "/x", 400, "mount is not allowed"),
        ("spec.environmentVariables.0.value_from", {}, 400, "value_from is not allowed"),
        ("spec.distributedFramework", "PyTorch", 400, "distributedFramework is not allowed"),
        ("masterSpecSameAsWorker", True, 400, "masterSpecSameAsWorker is not allowed"),
        ("projectId", PROJECT_ID, 400, "projectId has the wrong type"),
        ("spec.args", ["a", "b"], 400, "args has the wrong type"),
        ("spec.backoffLimit", "0", 400, "backoffLimit has the wrong type"),
        ("spec.compute.gpuDevicesRequest", "1", 400, "wrong type"),
        ("spec.environmentVariables.0.value", 1, 400, "wrong type"),
        ("spec.environmentVariables.0.value", None, 400, "exactly one source"),
        ("spec.environmentVariables.0.secret", {"name": "a", "key": "b"}, 400, "exactly one"),
        ("name", "A_Workload", 400, "DNS-1123"),
        ("name", "a" * 64, 400, "DNS-1123"),
        ("clusterId", None, 400, "clusterId is required"),
        ("projectId", "99", 403, "no permission"),
        ("spec.image", "", 400, "image is required"),
        ("spec.nodePools", ["h200"], 400, "does not exist"),
        ("spec.preemptibility", "sometimes", 400, "preemptibility is invalid"),
        ("spec.storage.pvc.0.claimName", "nobodys", 400, "not found"),
        ("spec.storage.pvc.0.path", "workspace", 400, "absolute"),
    ],
)
def test_runai_refuses_a_training(
    runai: httpx.Client, path: str, value: Any, status: int, words: str
) -> None:
    body = changed({**WORKLOAD, "name": "refused"}, path, value)
    told = runai.post("/workloads/trainings", json=body)
    assert told.status_code == status
    assert words in told.json()["error"]
    listed = runai.get("/workloads").json()["workloads"]
    assert {row["name"] for row in listed} <= {"a-workload", "another"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"numWorkers": 1}, "distributedFramework is invalid"),
        ({"distributedFramework": "PyTorch"}, "numWorkers"),
        ({"distributedFramework": "PyTorch", "numWorkers": "1"}, "wrong type"),
    ],
)
def test_runai_refuses_a_distributed_training(
    runai: httpx.Client, spec: dict[str, Any], words: str
) -> None:
    body = {**WORKLOAD, "name": "refused", "spec": {**WORKLOAD["spec"], **spec}}
    told = runai.post("/workloads/distributed", json=body)
    assert told.status_code == 400
    assert words in told.json()["error"]


def test_runai_wants_the_right_method_route_and_token(runai: httpx.Client) -> None:
    body = {**WORKLOAD, "name": "another"}
    made = runai.post("/workloads/trainings", json=body).json()["workloadId"]
    for verb in ("suspend", "resume"):
        assert runai.get(f"/workloads/trainings/{made}/{verb}").status_code == 405
        assert runai.post(f"/workloads/distributed/{made}/{verb}").status_code == 404
        assert runai.post(f"/workloads/{made}/{verb}").status_code == 404
    assert runai.post(f"/workloads/trainings/{made}/resume").status_code == 409
    assert runai.get(f"/workloads/distributed/{made}").status_code == 404
    assert runai.patch(f"/workloads/trainings/{made}", json={}).status_code == 405
    assert runai.get("/workloads", params={"limit": 501}).status_code == 400
    assert runai.get("/clusters", headers={"Authorization": "Bearer x"}).status_code == 401
    wrong = {"grantType": "client_credentials", "client_id": CLIENT, "client_secret": SECRET}
    assert runai.post("/token", json=wrong).status_code == 400
