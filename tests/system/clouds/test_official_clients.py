"""The fakes are faithful: NVIDIA's own clients drive them, and send what ours send.

The clients live in an environment of their own, since what they pin would break ours. Where their
packages cannot be had, there is nothing to compare with.
"""

from __future__ import annotations

import json
import subprocess
import textwrap
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.clouds.lepton import FakeLepton
from tests.system.clouds.lepton_place import LeptonPlace, workspace_on_loopback
from tests.system.clouds.lepton_schema import GROUP_ID, TOKEN, WORKSPACE
from tests.system.clouds.runai import FakeRunAI
from tests.system.clouds.runai_place import RunAIPlace, tenant_on_loopback
from tests.system.clouds.runai_schema import CLIENT, PROJECT, SECRET
from tunedeck.core.plan import Launch, SecretRef

pytestmark = pytest.mark.slow

_CLIENTS = ("leptonai==0.47.1", "runapy==1.224.0")
_NEEDS = (
    *("pydantic>=2,<3", "loguru", "requests", "pyyaml", "fastapi", "rich", "click", "contextlib2"),
    *("exceptiongroup", "anyio==4.9.0", "httpx[http2]==0.27.2"),
    *("urllib3", "aiohttp", "aiohttp-retry", "python-dateutil", "typing-extensions"),
)
"""What they import; all that they declare (ray among it) would be a gigabyte."""

_LIMIT_S = 300


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of an environment that has the clients."""
    folder = tmp_path_factory.mktemp("clients")
    venv.create(folder, with_pip=True)
    found = str(folder / "bin" / "python")
    for words in (("--no-deps", *_CLIENTS), _NEEDS):
        command = [found, "-m", "pip", "install", "-q", "--disable-pip-version-check", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:]
            pytest.skip(f"leptonai and runapy cannot be installed here: {last}")
    return found


def drive(python: str, script: str, facts: dict[str, Any], folder: Path) -> Any:
    """Run a script in the clients' environment; what it prints last is its answer, as JSON."""
    done = subprocess.run(
        [python, "-c", textwrap.dedent(script)],
        input=json.dumps(facts),
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
        env={"HOME": str(folder), "LEPTON_CACHE_DIR": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where two bodies differ; what only theirs has is listed with a plus."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted({*ours, *theirs}):
            inner = f"{path}.{key}".lstrip(".")
            if key not in theirs:
                yield f"- {inner}"
            elif key not in ours:
                yield f"+ {inner}={theirs[key]!r}"
            else:
                yield from differences(ours[key], theirs[key], inner)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{path}.{number}")
    elif ours != theirs or type(ours) is not type(theirs):
        yield f"{path}: {ours!r} != {theirs!r}"


@pytest.fixture
def lepton(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLepton]:
    with workspace_on_loopback(tmp_path, monkeypatch) as service:
        yield service


@pytest.fixture
def runai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRunAI]:
    with tenant_on_loopback(tmp_path, monkeypatch) as service:
        yield service


_LEPTON = """
    import json, sys, time
    from leptonai.api.v2.client import APIClient
    from leptonai.api.v2.types.job import LeptonJob
    from leptonai.api.v2.types.secret import SecretItem
    facts = json.load(sys.stdin)
    client = APIClient(facts["workspace"], facts["token"], facts["url"])
    client.secret.create([SecretItem(name="OTHER", value="x")])
    body = facts["body"]
    body["metadata"]["id"] = "made-by-leptonai"
    made = client.job.create(LeptonJob(**body)).metadata.id_
    while client.job.get(made).status.state.value not in ("Completed", "Failed"):
        time.sleep(0.2)
    replica = client.job.get_replicas(made)[0].metadata.id_
    created = client.job.get(made).metadata.created_at * 1_000_000
    log = client.log.get_log(name_or_job=made, replica=replica, start=created - 10**9,
                             end=created + 10**12, direction="forward")
    answer = {
        "state": client.job.get(made).status.state.value,
        "jobs": sorted(job.metadata.id_ for job in client.job.list_all()),
        "groups": [group.metadata.id_ for group in client.nodegroup.list_all()],
        "shapes": [shape.spec.name for shape in client.shapes.list_shapes(purpose="job")],
        "secrets": sorted(secret.name for secret in client.secret.list_all()),
        "reservations": [r.status.phase.value for r in
                         client.nodegroup.list_reservations(facts["group"])],
        "nodes": len(client.nodegroup.list_nodes(facts["group"])),
        "lines": [line for stream in log["data"]["result"] for _, line in stream["values"]],
    }
    client.job.update(made, spec={"spec": {"stopped": True}})
    client.job.update(made, spec={"spec": {"stopped": False}})
    answer["after"] = client.job.get(made).status.state.value
    client.job.delete(made)
    answer["left"] = [job.metadata.id_ for job in client.job.list_all()]
    print(json.dumps(answer))
"""


@pytest.mark.parametrize("nodes", [1, 2])
async def test_leptonai_sends_the_same_job(
    python: str, lepton: FakeLepton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s3cret" * 6)
    place = LeptonPlace(lepton)
    place.values |= {
        "shared_memory_size": 1024,
        "queue_priority": "mid-4000",
        "can_be_preempted": True,
        "can_preempt": False,
        "node_reservation": "res-1",
        "image_pull_secrets": ["registry"],
        "max_requeues": 1,
    }
    plan = place.plan(
        "echo hello",
        secrets=(SecretRef("HF_TOKEN", "HF_TOKEN"),),
        env={"GREETING": "hello"},
        launch=Launch("command", "tunedeck.trainer", ("sft",), nodes=nodes),
    )
    backend = place.backend(plan)
    await backend.submit(backend.render(plan))
    (request,) = lepton.sent("POST", "/jobs$")
    ours = request.json()
    facts = {"workspace": WORKSPACE, "token": TOKEN, "url": lepton.workspace_url,
             "group": GROUP_ID, "body": ours}  # fmt: skip
    told = drive(python, _LEPTON, facts, tmp_path)
    theirs = lepton.sent("POST", "/jobs$")[-1].json()
    assert theirs["metadata"]["id"] == "made-by-leptonai"
    theirs["metadata"]["id"] = ours["metadata"]["id"] = "same"
    assert list(differences(ours, theirs)) == ["+ spec.ttl_seconds_after_finished=600"]
    assert told["state"] == "Completed"
    assert told["lines"][:1] == ["hello"]
    assert "made-by-leptonai" in told["jobs"]
    assert told["groups"] == [GROUP_ID]
    assert "cpu.small" in told["shapes"]
    assert told["secrets"] == ["HF_TOKEN", "OTHER"]
    assert told["reservations"] == ["Reserved"]
    assert told["nodes"] == 2
    assert told["after"] in ("Queueing", "Running", "Completed")
    assert "made-by-leptonai" not in told["left"]


_RUNAPY = """
    import json, sys, time
    from runai import models
    from runai.api_client import ApiClient
    from runai.configuration import Configuration
    from runai.runai_client import RunaiClient
    facts = json.load(sys.stdin)
    settings = Configuration(client_id=facts["client"], client_secret=facts["secret"],
                             runai_base_url=facts["url"])
    client = RunaiClient(ApiClient(settings))
    routes = {"trainings": (client.workloads.trainings, "training", "create_training1",
                            models.TrainingCreationRequest),
              "distributed": (client.workloads.distributed, "distributed", "create_distributed",
                              models.DistributedCreationRequest)}
    route, noun, create, model = routes[facts["kind"]]
    body = {**facts["body"], "name": "made-by-runapy"}
    made = getattr(route, create)(model.from_dict(body)).data["workloadId"]
    get = lambda: getattr(route, f"get_{noun}")(made).data
    while get()["actualPhase"] not in ("Completed", "Failed"):
        time.sleep(0.2)
    listed = client.workloads.workloads.get_workloads(filter_by=["name==made-by-runapy"]).data
    answer = {
        "phase": get()["actualPhase"],
        "listed": [row["name"] for row in listed["workloads"]],
        "projects": [row["name"] for row in
                     client.organizations.projects.get_projects().data["projects"]],
        "clusters": [row["domain"] for row in client.organizations.clusters.get_clusters().data],
        "pods": len(client.workloads.pods.get_workload_pods(made).data["pods"]),
    }
    getattr(route, f"suspend_{noun}")(made)
    answer["suspended"] = get()["desiredPhase"]
    getattr(route, f"resume_{noun}")(made)
    answer["resumed"] = get()["desiredPhase"]
    getattr(route, f"delete_{noun}")(made)
    print(json.dumps(answer))
"""


@pytest.mark.parametrize("nodes", [1, 2])
async def test_runapy_sends_the_same_workload(
    python: str, runai: FakeRunAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: int
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "s3cret" * 6)
    place = RunAIPlace(runai)
    place.values |= {
        "node_pools": ["h100", "default"],
        "priority_class": "train",
        "preemptibility": "preemptible",
        "image_pull_secrets": ["registry"],
        "custom_spec": {"compute": {"cpuCoreRequest": 4, "cpuMemoryRequest": "16G"}},
    }
    plan = place.plan(
        "echo hello",
        secrets=(SecretRef("HF_TOKEN", "HF_TOKEN"),),
        env={"GREETING": "hello"},
        launch=Launch("command", "tunedeck.trainer", ("sft",), nodes=nodes),
    )
    backend = place.backend(plan)
    await backend.submit(backend.render(plan))
    kind = "trainings" if nodes == 1 else "distributed"
    (request,) = runai.sent("POST", f"/workloads/{kind}$")
    ours = request.json()
    facts = {"client": CLIENT, "secret": SECRET, "url": runai.url, "kind": kind, "body": ours}
    told = drive(python, _RUNAPY, facts, tmp_path)
    theirs = runai.sent("POST", f"/workloads/{kind}$")[-1].json()
    assert theirs["name"] == "made-by-runapy"
    theirs["name"] = ours["name"]
    plus = [line for line in differences(ours, theirs) if not _default(line)]
    assert plus == []
    assert told["phase"] == "Completed"
    assert told["listed"] == ["made-by-runapy"]
    assert told["projects"] == [PROJECT]
    assert told["clusters"] == [f"https://{runai.domain}"]
    assert told["pods"] == nodes
    assert (told["suspended"], told["resumed"]) == ("Stopped", "Running")
    made = [w.id for w in runai.workloads.values() if w.name == "made-by-runapy"]
    for verb in ("suspend", "resume"):
        (request,) = runai.sent("POST", f"/{verb}$")
        assert request.path == f"/api/v1/workloads/{kind}/{made[0]}/{verb}"


def _default(line: str) -> bool:
    """Whether a difference is a default that their client writes out, or a null."""
    name, _, value = line.removeprefix("+ ").partition("=")
    if line.startswith("+ ") and value == "None":
        return True
    written = {"useGivenNameAsPrefix", "readOnly", "ephemeral", "dataSharing", "exclude"}
    if line.startswith("+ ") and name.rpartition(".")[2] in written:
        return value == "False"
    return line in ("+ spec.slotsPerWorker=1", "+ spec.sshAuthMountPath='/root/.ssh'")
