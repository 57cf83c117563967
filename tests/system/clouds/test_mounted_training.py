"""The shipped trainer on Lepton and on Run:ai, from a generated env file to an adapter."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.system.clouds.lepton import FakeLepton
from tests.system.clouds.lepton_place import workspace_on_loopback
from tests.system.clouds.runai import FakeRunAI
from tests.system.clouds.runai_place import tenant_on_loopback
from tests.system.clouds.runai_schema import CLAIM, CLIENT, PROJECT, SECRET
from tests.system.clouds.training import LAUNCH, measured
from tunedeck.core.runs.registry import Registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CANARY = "canary-77c0e1d2ab"


@dataclass(frozen=True)
class Site:
    """A service, and what a person would call it by.

    Attributes:
        runs: the folder of the runs, as this machine sees it.
        secrets: what must be told to nobody but the service's own field for it.
    """

    executor: str
    service: Any
    runs: Path
    secrets: tuple[str, ...]

    @property
    def profile(self) -> str:
        return f"{self.executor}_peft_automodel"

    def kept(self) -> set[str]:
        """The secrets that the service was given."""
        if isinstance(self.service, FakeLepton):
            return set(self.service.secrets.values())
        values = self.service.credentials.values()
        return {value for pairs in values for value in pairs.values()}


@pytest.fixture(params=["lepton", "dgxcloud"])
def site(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if request.param == "lepton":
        for name, value in {
            "LEPTON_NODE_GROUP": "h100-pool",
            "LEPTON_GPU_SHAPE": "gpu.8xh100-80gb",
            "LEPTON_ONE_GPU_SHAPE": "gpu.h100-80gb",
            "NEMOTRON_HOST_MOUNT": "/users/ada",
            "NEMOTRON_MOUNT_FROM": "node-nfs:lustre",
        }.items():
            monkeypatch.setenv(name, value)
        with workspace_on_loopback(tmp_path, monkeypatch) as lepton:
            storage = lepton.storage({"from": "node-nfs:lustre", "path": "/users/ada"})
            yield Site("lepton", lepton, storage / "tunedeck", (CANARY,))
        return
    with tenant_on_loopback(tmp_path, monkeypatch) as runai:
        monkeypatch.setenv("DGXCLOUD_BASE_URL", runai.base_url)
        monkeypatch.setenv("DGXCLOUD_CLIENT_ID", CLIENT)
        monkeypatch.setenv("DGXCLOUD_PROJECT_NAME", PROJECT)
        monkeypatch.setenv("DGXCLOUD_PVC_CLAIM", CLAIM)
        yield Site("dgxcloud", runai, runai.volume(CLAIM) / "tunedeck", (CANARY, SECRET))


def test_a_run_trains_there_as_it_does_here(
    site: Site,
    trained_here: str,
    tunedeck: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    made = tunedeck("env", "init", "-c", site.executor)
    assert made.returncode == 0, made.stderr
    checked = tunedeck("env", "check")
    assert checked.returncode == 0, checked.stdout

    preview = tunedeck(*LAUNCH, "-r", site.profile, "--dry-run", "--online", "--json")
    assert preview.returncode == 0, preview.stderr
    shown = json.loads(preview.stdout)
    assert [f for f in shown["findings"] if f["severity"] == "error"] == []
    assert {upload["by"] for upload in shown["submission"]["payload"]["uploads"]} == {
        "the job's environment", "jobs that go ahead",
    }  # fmt: skip

    there = tunedeck(*LAUNCH, "-r", site.profile, timeout=400)
    assert there.returncode == 0, there.stderr
    assert measured(there.stdout) == measured(trained_here)
    assert "tunedeck: exit=0" in there.stdout.splitlines()

    record = Registry().list()[0]
    assert (record.backend, str(record.state), record.exit_code) == (site.executor, "succeeded", 0)
    kept = site.runs / record.run_id
    assert (kept / "checkpoints" / "latest" / "adapter_model.safetensors").is_file()
    assert json.loads((kept / "exit.json").read_text())["exit_code"] == 0

    further = tunedeck("runs", "resume", record.run_id, "step_scheduler.max_steps=8", timeout=400)
    assert further.returncode == 0, further.stderr
    steps = [line.split()[0] for line in measured(further.stdout)]
    assert "step=8" in steps
    assert "step=1" not in steps

    assert CANARY in site.kept()
    said = (made, checked, preview, there, further)
    for secret in site.secrets:
        assert not any(secret in done.stdout + done.stderr for done in said)
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_two_nodes_train_one_model(
    site: Site, trained_here: str, tunedeck: Callable[..., CompletedProcess[str]]
) -> None:
    tunedeck("env", "init", "-c", site.executor)
    nodes = ("run.env.nodes=2", "run.env.gpus_per_node=1")
    done = tunedeck(*LAUNCH, *nodes, "-r", site.profile, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "world_size=2" in done.stdout

    def losses(text: str) -> list[float]:
        found = [re.search(r" loss=(\S+)", line) for line in measured(text)]
        return [float(match[1]) for match in found if match]

    assert len(losses(done.stdout)) == 6
    assert losses(done.stdout) == pytest.approx(losses(trained_here), rel=1e-4)


def test_a_run_that_fails_there_ends_with_the_exit_codes_of_a_run_here(
    site: Site, tunedeck: Callable[..., CompletedProcess[str]]
) -> None:
    tunedeck("env", "init", "-c", site.executor)
    launch = ("steps", "run", "peft/automodel", "-c", "tiny", "run.env.run_command=exit 7")
    done = tunedeck(*launch, "-r", site.profile, "--json")
    assert done.returncode == 100, done.stderr
    assert json.loads(done.stdout)["exit_code"] == 7
    queue = tunedeck("queue", site.profile)
    assert queue.returncode == 0, queue.stderr
    assert "h100" in queue.stdout
    assert f"{site.executor} answers" in tunedeck("doctor", site.profile).stdout
    run_id = json.loads(done.stdout)["run_id"]
    fetched = tunedeck("runs", "fetch", run_id)
    assert fetched.returncode == 0, fetched.stderr
    assert "exit.json" in fetched.stdout
    assert site.service.run_of(run_id) is not None
    deleted = tunedeck("runs", "delete", run_id, "--yes", "--at-service")
    assert deleted.returncode == 0, deleted.stderr
    gone = site.service.run_of(run_id)
    assert gone.deleted if site.executor == "lepton" else gone.deleted_at


def test_what_the_service_lacks_is_said_before_a_run_is_recorded(
    site: Site, tunedeck: Callable[..., CompletedProcess[str]]
) -> None:
    tunedeck("env", "init", "-c", site.executor)
    key = "node_group" if site.executor == "lepton" else "project_name"
    done = tunedeck(*LAUNCH, f"run.env.{key}=elsewhere", "-r", site.profile)
    assert done.returncode == 2, done.stdout
    assert "elsewhere" in done.stderr
    assert Registry().list() == []
    assert isinstance(site.service, FakeLepton | FakeRunAI)
    assert site.kept() == set()


@pytest.mark.parametrize(("trouble", "code"), [({"status": 503}, 3), ({"status": 401}, 4)])
def test_a_service_that_is_away_or_refuses_is_told_from_a_mistake(
    site: Site,
    tunedeck: Callable[..., CompletedProcess[str]],
    trouble: dict[str, int],
    code: int,
) -> None:
    tunedeck("env", "init", "-c", site.executor)
    site.service.fault("GET", "/(workspace|projects|dedicated-node-groups)$", times=99, **trouble)
    done = tunedeck(*LAUNCH, "-b", site.profile)
    assert done.returncode == code, done.stderr
    assert str(trouble["status"]) in done.stderr
    assert Registry().list() == []
