"""Lepton: how a run is sent, and what becomes of it when the service misbehaves."""

from __future__ import annotations

import json
import os
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.core.backends.cloud_runs import (
    CANARY,
    lines_of,
    local_input,
    status_at_end,
    submit,
    texts,
)
from tests.system.clouds.lepton import FakeLepton
from tests.system.clouds.lepton_place import LeptonPlace
from tests.system.clouds.lepton_schema import GROUP_ID, TOKEN
from tunedeck.core.errors import AuthenticationError, ReachError, UsageError
from tunedeck.core.plan import Launch, LocalInput, SecretRef, digest_of, new_run_id
from tunedeck.core.states import RunState


@pytest.fixture
def place(lepton_place: LeptonPlace) -> LeptonPlace:
    return lepton_place


# Sending it.


async def test_a_secret_is_sent_to_the_secrets_alone(
    place: LeptonPlace, lepton: FakeLepton, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    plan = place.plan("echo $HF_TOKEN | wc -c", secrets=(SecretRef("HF_TOKEN", "HF_TOKEN"),))
    backend = place.backend(plan)
    submission = backend.render(plan)
    assert CANARY not in json.dumps(submission.to_json())
    handle = await backend.submit(submission)
    assert texts(await lines_of(backend, handle))[0] == str(len(CANARY) + 1)
    with_it = [r for r in lepton.requests if CANARY.encode() in r.body or CANARY in r.path]
    assert [(r.method, r.path.rpartition("/")[2]) for r in with_it] == [("POST", "usersecrets")]
    assert with_it[0].json() == [{"name": "HF_TOKEN", "value": CANARY}]
    assert CANARY not in json.dumps(handle.data)
    files = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]


async def test_a_secret_that_the_workspace_has_stays_as_it_is(
    place: LeptonPlace, lepton: FakeLepton, monkeypatch: pytest.MonkeyPatch
) -> None:
    lepton.secrets["HF_TOKEN"] = "theirs"
    monkeypatch.setenv("HF_TOKEN", CANARY)
    plan = place.plan("echo $HF_TOKEN", secrets=(SecretRef("HF_TOKEN", "HF_TOKEN"),))
    backend, handle = await submit(place, plan)
    assert texts(await lines_of(backend, handle))[0] == "theirs"


async def test_a_secret_that_nobody_has_is_left_out(
    place: LeptonPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOBODYS_TOKEN", raising=False)
    secret = SecretRef("NOBODYS_TOKEN", "NOBODYS_TOKEN")
    backend, handle = await submit(
        place, place.plan("echo [${NOBODYS_TOKEN-none}]", secrets=(secret,))
    )
    assert texts(await lines_of(backend, handle))[0] == "[none]"


@pytest.mark.parametrize("group", ["h100-pool", GROUP_ID])
async def test_a_node_group_is_known_by_its_name_or_its_id(
    place: LeptonPlace, lepton: FakeLepton, group: str
) -> None:
    place.values["node_group"] = group
    await submit(place, place.plan("true"))
    (request,) = lepton.sent("POST", "/jobs$")
    affinity = request.json()["spec"]["affinity"]
    assert affinity == {"allowed_dedicated_node_groups": [GROUP_ID]}


async def test_an_unknown_node_group_names_those_there_are(place: LeptonPlace) -> None:
    place.values["node_group"] = "h100-pol"
    with pytest.raises(UsageError, match="Did you mean 'h100-pool'"):
        await submit(place, place.plan("true"))


@pytest.mark.parametrize("token", ["", "wrong", TOKEN])
async def test_a_token_that_is_refused_is_an_error_of_authentication(
    place: LeptonPlace, lepton: FakeLepton, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    lepton.expired.add(TOKEN)
    monkeypatch.setenv("LEPTON_WORKSPACE_TOKEN", token)
    monkeypatch.setenv("LEPTON_CACHE_DIR", "/nonexistent")
    with pytest.raises(AuthenticationError) as refused:
        await submit(place, place.plan("true"))
    assert "LEPTON_WORKSPACE_TOKEN" in refused.value.fix
    assert TOKEN not in str(refused.value)


async def test_a_permission_that_is_missing_is_told_by_what_was_asked(
    place: LeptonPlace, lepton: FakeLepton
) -> None:
    lepton.fault("GET", "/dedicated-node-groups$", status=403)
    with pytest.raises(AuthenticationError) as refused:
        await submit(place, place.plan("true"))
    assert "a permission, for GET /api/v2/workspaces/nemo-lab/dedicated-no" in refused.value.fix


async def test_the_login_of_their_command_line_serves_as_well(
    place: LeptonPlace, lepton: FakeLepton, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ID", "TOKEN", "URL"):
        monkeypatch.delenv(f"LEPTON_WORKSPACE_{name}")
    monkeypatch.setenv("LEPTON_CACHE_DIR", str(tmp_path))
    (tmp_path / "workspace_info.yaml").write_text(
        "current_workspace: nemo-lab\nworkspaces:\n  nemo-lab:\n"
        f"    url: {lepton.workspace_url}\n    auth_token: {TOKEN}\n"
    )
    backend, handle = await submit(place, place.plan("true"))
    assert (await status_at_end(backend, handle)).state is RunState.SUCCEEDED


@pytest.mark.parametrize("size", [1000, 1_500_000], ids=["along", "ahead"])
async def test_an_input_is_on_the_storage_before_the_step_starts(
    place: LeptonPlace, lepton: FakeLepton, tmp_path: Path, size: int
) -> None:
    source = tmp_path / "data set.jsonl"
    source.write_bytes(os.urandom(size))
    plan = place.plan(
        "python3 -c 'import sys, yaml, hashlib;"
        ' path = yaml.safe_load(open(sys.argv[1]))["dataset"]["path_or_dataset_id"];'
        ' print(hashlib.sha256(open(path, "rb").read()).hexdigest())\' {config}',
        inputs=(local_input(source),),
        config={"dataset": {"path_or_dataset_id": str(source)}},
    )
    backend, handle = await submit(place, plan)
    digest = plan.inputs[0].digest.removeprefix("sha256:")
    assert texts(await lines_of(backend, handle))[0] == digest
    carriers = [job for job in lepton.jobs.values() if job.id.startswith("tunedeck-")]
    assert len(carriers) == (0 if size < 100_000 else 3)
    # A second run finds it there, by its digest.
    again = replace(plan, run_id=new_run_id(), digest=digest_of("again"))
    await submit(place, again)
    assert len(lepton.sent("POST", "/jobs$")) == 2 + len(carriers)


@pytest.mark.slow
async def test_a_carrier_that_failed_is_started_again(
    place: LeptonPlace, lepton: FakeLepton, tmp_path: Path
) -> None:
    source = tmp_path / "data.bin"
    source.write_bytes(os.urandom(600_000))
    plan = place.plan("true", inputs=(local_input(source),), config={"dataset": {}})
    storage = lepton.storage({"from": "node-nfs:lustre", "path": "/users/ada"})
    (storage / "tunedeck").write_text("a file where a folder must be")
    backend = place.backend(plan)
    with pytest.raises(Exception, match="could not bring an input"):
        await backend.submit(backend.render(plan))
    (storage / "tunedeck").unlink()
    handle = await backend.submit(backend.render(plan))
    assert (await status_at_end(backend, handle)).state is RunState.SUCCEEDED


def test_an_input_that_is_too_large_says_what_to_do(place: LeptonPlace, tmp_path: Path) -> None:
    item = LocalInput("dataset.path_or_dataset_id", str(tmp_path / "x"), digest_of(1), 3 << 30)
    plan = place.plan("true", inputs=(item,))
    with pytest.raises(UsageError, match="3072 MiB") as refused:
        place.backend(plan).render(plan)
    assert "launched_from_cluster" in refused.value.fix


async def test_launched_from_the_cluster_the_storage_is_written_directly(
    place: LeptonPlace, lepton: FakeLepton, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    place.values |= {
        "launched_from_cluster": True,
        "remote_job_dir": f"{shared}/runs",
        "mounts": [{"path": "/x", "mount_path": str(shared), "from": "node-local"}],
    }
    plan = place.plan("true")
    backend = place.backend(plan)
    await backend.submit(backend.render(plan))
    (archive,) = (shared / "runs" / ".tunedeck" / "code").glob("*.tar.gz")
    assert archive.stat().st_size > 10_000
    names = [env["name"] for env in lepton.sent("POST", "/jobs$")[0].json()["spec"]["envs"]]
    assert not [name for name in names if name.startswith("TUNEDECK_PARCEL")]


# What becomes of it.


@pytest.mark.slow
async def test_replicas_are_all_read_and_named(place: LeptonPlace) -> None:
    launch = Launch("command", "tunedeck.trainer", ("sft",), nodes=3)
    plan = place.plan("echo node $NODE_RANK of $NNODES at $MASTER_ADDR", launch=launch)
    backend, handle = await submit(place, plan)
    entries = await lines_of(backend, handle)
    assert sorted(texts(entries)) == sorted(
        line
        for n, mark in enumerate(("", "[1] ", "[2] "))
        for line in (f"{mark}node {n} of 3 at 127.0.0.1", f"{mark}tunedeck: exit=0")
    )
    assert texts(await lines_of(backend, handle, entries[2].cursor)) == texts(entries[3:])


@pytest.mark.slow
async def test_a_job_that_is_tried_again_keeps_its_log(place: LeptonPlace, tmp_path: Path) -> None:
    place.values["max_requeues"] = 1
    mark = tmp_path / "was here"
    plan = place.plan(f'if [ -e "{mark}" ]; then echo second; else touch "{mark}"; exit 3; fi')
    backend, handle = await submit(place, plan)
    assert texts(await lines_of(backend, handle)) == [
        "tunedeck: exit=3", "second", "tunedeck: exit=0",
    ]  # fmt: skip
    assert (await backend.status(handle)).state is RunState.SUCCEEDED


async def test_a_page_that_is_empty_is_not_the_end(place: LeptonPlace, lepton: FakeLepton) -> None:
    lepton.fault("GET", "/logs$", data={"data": {"result": []}}, times=2)
    lepton.fault("GET", "/logs$", status=429, headers={"Retry-After": "0"}, skip=1)
    lepton.fault("GET", "/logs$", text="{", skip=2)
    backend, handle = await submit(place, place.plan("echo a; sleep 1; echo b"))
    assert texts(await lines_of(backend, handle)) == ["a", "b", "tunedeck: exit=0"]


async def test_a_token_that_expires_ends_the_log_with_an_error(
    place: LeptonPlace, lepton: FakeLepton
) -> None:
    backend, handle = await submit(place, place.plan("echo first; sleep 60"))
    with pytest.raises(AuthenticationError):
        async with aclosing(backend.logs(handle, None, follow=True)) as lines:
            async for entry in lines:
                assert entry.line == b"first"
                lepton.expired.add(TOKEN)


@pytest.mark.parametrize(
    ("told", "state", "reason"),
    [
        ({"state": "Queueing"}, RunState.QUEUED, ""),
        ({"state": "Awaiting"}, RunState.QUEUED, ""),
        ({"state": "PendingRetry"}, RunState.QUEUED, ""),
        ({"state": "Starting"}, RunState.STARTING, ""),
        ({"state": "Restarting"}, RunState.STARTING, ""),
        ({"state": "Running", "ready": 4, "active": 4}, RunState.RUNNING, ""),
        (
            {"state": "Running", "ready": 1, "active": 4},
            RunState.STARTING,
            "1 of 4 replicas are up",
        ),
        ({"state": "Stopping"}, RunState.STOPPING, ""),
        ({"state": "Terminating"}, RunState.STOPPING, ""),
        ({"state": "Deleting"}, RunState.STOPPING, ""),
        ({"state": "Stopped"}, RunState.CANCELLED, ""),
        ({"state": "Completed"}, RunState.SUCCEEDED, ""),
        ({"state": "Failed", "failed": 2}, RunState.FAILED, "2 of 4 replicas failed"),
        ({"state": "Deleted"}, RunState.LOST, ""),
        ({"state": "Archived", "succeeded": 4}, RunState.SUCCEEDED, ""),
        ({"state": "Archived", "failed": 1}, RunState.FAILED, ""),
        ({"state": "UNK"}, RunState.RUNNING, ""),
        ({"state": "SomethingNew"}, RunState.RUNNING, ""),
    ],
)
def test_every_state_of_theirs_has_one_of_ours(
    told: dict[str, Any], state: RunState, reason: str
) -> None:
    from tunedeck.core.backends.lepton.watch import status_from

    job = {"spec": {"parallelism": 4, "completions": 4}, "status": told}
    status = status_from(job)
    assert (status.state, status.word, status.reason) == (state, told["state"], reason)


async def test_another_workspace_is_not_asked_about_a_run(
    place: LeptonPlace, lepton: FakeLepton, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = place.plan("true")
    _, handle = await submit(place, plan)
    elsewhere = lepton.workspace_url.replace("nemo-lab", "other-lab")
    monkeypatch.setenv("LEPTON_WORKSPACE_URL", elsewhere)
    with pytest.raises(ReachError, match="other-lab") as refused:
        await place.backend(plan).status(handle)
    assert "LEPTON_WORKSPACE_ID" in refused.value.fix


async def test_a_job_that_is_deleted_is_lost(place: LeptonPlace) -> None:
    backend, handle = await submit(place, place.plan("sleep 60"))
    await backend.forget(handle)  # type: ignore[attr-defined]
    assert (await backend.status(handle)).state is RunState.LOST
    await backend.forget(handle)  # type: ignore[attr-defined]


@pytest.mark.slow
async def test_stopping_keeps_the_job_and_its_log(place: LeptonPlace, lepton: FakeLepton) -> None:
    backend, handle = await submit(place, place.plan("echo up; sleep 60"))
    async with aclosing(backend.logs(handle, None, follow=True)) as lines:
        assert (await anext(lines)).line == b"up"
    assert (await backend.cancel(handle)).state is RunState.CANCELLED
    (patch,) = lepton.sent("PATCH", "/jobs/")
    assert patch.json() == {"spec": {"stopped": True}}
    assert lepton.sent("DELETE", "") == []
    assert texts(await lines_of(backend, handle))[0] == "up"
