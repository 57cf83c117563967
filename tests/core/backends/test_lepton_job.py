"""Lepton: the job that a plan becomes, and what a workspace says of it before it is sent."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.core.backends.cloud_runs import submit
from tests.system.clouds.lepton import FakeLepton
from tests.system.clouds.lepton_place import LeptonPlace
from tests.system.clouds.lepton_schema import GROUP_ID
from tunedeck.core.backends.base import TellsInventory
from tunedeck.core.errors import UsageError
from tunedeck.core.plan import Launch, Plan, SecretRef


@pytest.fixture
def place(lepton_place: LeptonPlace) -> LeptonPlace:
    return lepton_place


def body_of(place: LeptonPlace, plan: Plan) -> dict[str, Any]:
    payload = place.backend(plan).render(plan).payload
    assert payload is not None
    found: dict[str, Any] = json.loads(json.dumps(payload["job"]))
    return found


def test_every_key_of_the_profile_has_its_field(place: LeptonPlace) -> None:
    place.values |= {
        "node_reservation": "res-1",
        "shared_memory_size": 65536,
        "image_pull_secrets": "registry",
        "queue_priority": "mid-4000",
        "can_be_preempted": True,
        "can_preempt": False,
        "max_requeues": 3,
        "custom_spec": {"ttl_seconds_after_finished": 60, "log": {"save_termination_logs": True}},
        "pre_launch_commands": ["echo before"],
        "startup_commands": ["echo at start"],
        "pip_extras": ["rouge-score"],
        "time": "01:00:00",
    }
    plan = place.plan("true", env={"A": "1"}, secrets=(SecretRef("KEY", "team-key", True),))
    body = body_of(place, plan)
    envs = body["spec"]["envs"]
    told = [env for env in envs if env["name"].startswith("TUNEDECK_")]
    assert told[0]["name"] == "TUNEDECK_PLAN"
    del envs[-len(told) :]
    script = body["spec"]["container"].pop("command")
    assert script[:2] == ["/bin/bash", "-c"]
    for words in ("echo before", "echo at start", "pip install --quiet rouge-score",
                  "TUNEDECK_DEADLINE=$((started_at + 3"):  # fmt: skip
        assert words in script[2]
    assert body == {
        "metadata": {
            "id": f"scenario-{plan.run_id}",
            "labels": {
                "tunedeck-run": plan.run_id,
                "tunedeck-digest": plan.digest.removeprefix("sha256:")[:63],
            },
        },
        "spec": {
            "resource_shape": "cpu.small",
            "affinity": {"allowed_dedicated_node_groups": ["h100-pool"]},
            "container": {"image": "python:3.12"},
            "completions": 1,
            "parallelism": 1,
            "max_failure_retry": 0,
            "max_job_failure_retry": 3,
            "envs": [
                {"name": "A", "value": "1"},
                {"name": "KEY", "value_from": {"secret_name_ref": "team-key"}},
            ],
            "mounts": [
                {
                    "path": "/users/ada",
                    "from": "node-nfs:lustre",
                    "mount_path": "/mnt/workspace",
                }
            ],
            "log": {"enable_collection": True, "save_termination_logs": True},
            "shared_memory_size": 65536,
            "image_pull_secrets": ["registry"],
            "reservation_config": {"reservation_id": "res-1"},
            "queue_config": {
                "priority_class": "mid-4000",
                "can_be_preempted": True,
                "can_preempt": False,
            },
            "ttl_seconds_after_finished": 60,
        },
    }


def test_several_nodes_meet_by_what_lepton_tells_them(place: LeptonPlace) -> None:
    launch = Launch("torchrun", "tunedeck.trainer", ("sft",), nodes=4, nproc_per_node=8)
    plan = place.plan("", launch=launch)
    plan = replace(
        plan, profile_values={k: v for k, v in plan.profile_values.items() if k != "run_command"}
    )
    spec = body_of(place, plan)["spec"]
    assert (spec["completions"], spec["parallelism"]) == (4, 4)
    assert spec["intra_job_communication"] is True
    script = spec["container"]["command"][2]
    assert 'MASTER_ADDR="${LEPTON_JOB_WORKER_PREFIX}-0.${LEPTON_SUBDOMAIN}"' in script
    assert 'NODE_RANK="${LEPTON_JOB_WORKER_INDEX}"' in script
    assert "--nnodes 4" in script
    assert "http" not in script  # nothing is downloaded at the start


@pytest.mark.parametrize(
    "name", ["Peft: A/B (v2)", "123", "x" * 60, "-", "ends-with-", "\u00e4\u00f6"]
)
def test_any_name_makes_a_name_that_the_service_takes(place: LeptonPlace, name: str) -> None:
    plan = replace(place.plan("true"), name=name)
    made = body_of(place, plan)["metadata"]["id"]
    assert made.endswith(plan.run_id)
    assert len(made) <= 36
    assert made[0].isalpha()
    assert not set(made) - set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"remote_job_dir": "/elsewhere/runs"}, "no mount of the profile holds"),
        ({"remote_job_dir": "runs"}, "no absolute path"),
        ({"resource_shape": None}, "no resource_shape"),
        ({"mounts": [{"path": "/a", "mount_path": "/mnt/workspace"}]}, "which storage it is on"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    place: LeptonPlace, change: dict[str, Any], words: str
) -> None:
    place.values |= change
    plan = place.plan("true")
    with pytest.raises(UsageError, match=words) as refused:
        place.backend(plan).render(plan)
    assert refused.value.fix


def test_a_run_without_a_time_limit_is_pointed_out(place: LeptonPlace) -> None:
    from tunedeck.core.backends.lepton.preflight import check_plan

    assert [finding.key for finding in check_plan(place.plan("true"))] == ["time"]
    place.values["time"] = "01:00:00"
    assert check_plan(place.plan("true")) == []


@pytest.mark.parametrize(
    ("word", "whole"),
    [("l", "low-1000"), ("mid", "mid-4000"), (5, "mid-5000"), ("HIGH-9", "high-9000"),
     ("low-2000", "low-2000")],
)  # fmt: skip
def test_a_priority_may_be_written_as_nvidias_client_takes_it(
    place: LeptonPlace, word: str | int, whole: str
) -> None:
    place.values["queue_priority"] = word
    body = body_of(place, place.plan("true"))
    assert body["spec"]["queue_config"]["priority_class"] == whole


def test_a_priority_that_there_is_not_is_refused_with_those_there_are(place: LeptonPlace) -> None:
    from tunedeck.core.backends.lepton.preflight import check_plan

    place.values |= {"queue_priority": "urgent", "time": "01:00:00"}
    (found,) = check_plan(place.plan("true"))
    assert (found.severity, found.key) == ("error", "queue_priority")
    assert found.fix
    assert "low-1000, low-2000" in found.fix.words
    assert "high-9000" in found.fix.words


def test_rendering_asks_nobody(place: LeptonPlace, lepton: FakeLepton) -> None:
    plan = place.plan("true", secrets=(SecretRef("HF_TOKEN", "HF_TOKEN"),))
    backend = place.backend(plan)
    assert backend.render(plan).to_json() == backend.render(plan).to_json()
    assert lepton.requests == []


async def findings(place: LeptonPlace, plan: Plan) -> dict[str, str]:
    found = await place.backend(plan).preflight(plan)
    return {f.key or "": f.message for f in found if f.severity == "error"}


async def test_a_sound_plan_has_no_complaint(place: LeptonPlace) -> None:
    assert await findings(place, place.plan("true")) == {}


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"node_group": "h200"}, "node_group", "no node group 'h200'"),
        ({"resource_shape": "gpu.h100-80"}, "resource_shape", "Did you mean 'gpu.h100-80gb'"),
        ({"node_reservation": "res-2"}, "node_reservation", "no reservation 'res-2'"),
        (
            {"mounts": [{"path": "/a", "mount_path": "/mnt/workspace", "from": "node-nfs:lustr"}]},
            "mounts.0.from",
            "Did you mean 'node-nfs:lustre'",
        ),
    ],
)
async def test_preflight_names_what_the_workspace_does_not_have(
    place: LeptonPlace, change: dict[str, Any], key: str, words: str
) -> None:
    place.values |= change
    assert words in (await findings(place, place.plan("true")))[key]


async def test_who_may_preempt_whom_is_asked_for_with_a_priority(
    place: LeptonPlace, lepton: FakeLepton
) -> None:
    """NVIDIA's client sends this class with it, and takes no node group without a queue."""
    place.values["can_preempt"] = False
    plan = place.plan("true")
    asked = {"priority_class": "mid-4000", "can_preempt": False}
    assert body_of(place, plan)["spec"]["queue_config"] == asked
    assert not [f for f in await place.backend(plan).preflight(plan) if f.severity == "warning"]
    without = {"metadata": {"id": GROUP_ID, "name": "h100-pool"}, "spec": {}, "status": {}}
    lepton.fault("GET", "/dedicated-node-groups$", data=[without], times=9)
    found = await place.backend(plan).preflight(plan)
    assert [f.key for f in found if f.severity == "warning"] == ["can_preempt"]


async def test_preflight_counts_the_shapes_gpus(place: LeptonPlace) -> None:
    launch = Launch("command", "tunedeck.trainer", ("sft",), gpus_per_node=8)
    place.values["resource_shape"] = "gpu.2xh100-80gb"
    found = await findings(place, place.plan("true", launch=launch))
    assert found["resource_shape"] == "The shape gpu.2xh100-80gb has 2 GPUs; the plan asks for 8."


async def test_preflight_looks_for_the_workspaces_secrets(
    place: LeptonPlace, lepton: FakeLepton
) -> None:
    lepton.secrets["team-token"] = "x"
    plan = place.plan("true", secrets=(SecretRef("HF_TOKEN", "team-tokn", True),))
    assert "Did you mean 'team-token'" in (await findings(place, plan))["secrets.HF_TOKEN"]


async def test_the_inventory_tells_what_is_free(place: LeptonPlace) -> None:
    plan = place.plan("sleep 30")
    backend, _ = await submit(place, plan)
    assert isinstance(backend, TellsInventory)
    found = await backend.inventory(dict(plan.profile_values))
    (group,) = found["node_groups"]
    assert (group["name"], group["gpus"], group["gpus_free"]) == ("h100-pool", 16, 15)
    assert {"name": "gpu.8xh100-80gb", "gpus": 8}.items() <= found["shapes"][-1].items()
    (job,) = found["jobs"]
    assert (job["run_id"], job["state"]) == (plan.run_id, "Running")
