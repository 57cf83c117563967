"""The places that a run can be sent to, as the scenario table sees them: one class for each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.system.clouds.hf import TOKEN, FakeHub
from tests.system.conftest import Cluster
from tunedeck.core import locations
from tunedeck.core.backends.base import Backend, load_backend
from tunedeck.core.backends.cloud import follow
from tunedeck.core.plan import Launch, Plan, SecretRef, digest_of, new_run_id
from tunedeck.core.process import processes_of, signal_all


class Place(Protocol):
    """A backend, the service behind it, and what can be done to that."""

    def plan(self, command: str, *, restore: str | None = None, held: bool = False) -> Plan:
        """A plan that runs a shell command; `held` has it wait in the queue where there is one."""
        ...

    def backend(self, plan: Plan) -> Backend:
        """The backend of a plan."""
        ...

    def drop(self) -> None:
        """Cut what is being followed, or have the next stream be cut."""
        ...

    def jobs_of(self, plan: Plan) -> int:
        """How many jobs the service has for a plan."""
        ...

    @property
    def queues(self) -> bool:
        """Whether a job can be made to wait."""
        ...


def plan_for(
    values: Mapping[str, Any],
    command: str,
    *,
    restore: str | None = None,
    secrets: tuple[SecretRef, ...] = (),
    **changes: Any,
) -> Plan:
    """A plan whose step is a shell command, with the executor of a profile's values."""
    run_id = new_run_id()
    facts: dict[str, Any] = {
        "run_id": run_id,
        "name": "scenario",
        "step": "peft/automodel",
        "step_source": "shipped",
        "config_name": "tiny",
        "config": {"checkpoint": {"checkpoint_dir": None, "restore_from": restore}},
        "profile": "scenario",
        "executor": values["executor"],
        "profile_values": {**values, "run_command": command},
        "launch": Launch("command", "tunedeck.trainer", ("sft",)),
        "env": {},
        "secrets": secrets,
        "inputs": (),
        "run_dir": locations.run_dir(run_id),
        "digest": digest_of(command),
        "created_at": time.time(),
        "selection": {"cwd": str(Path.cwd()), "env_file": None, "catalog": []},
    }
    return Plan(**{**facts, **changes})


class LocalPlace:
    """This machine: nothing waits, and no connection is there to be cut."""

    queues = False

    def __init__(self) -> None:
        self._plans: list[Plan] = []

    def plan(self, command: str, *, restore: str | None = None, held: bool = False) -> Plan:
        assert not held
        self._plans.append(plan_for({"executor": "local"}, command, restore=restore))
        return self._plans[-1]

    def backend(self, plan: Plan) -> Backend:
        return load_backend("local", dict(plan.profile_values))

    def drop(self) -> None:
        """A reader that comes back is all there is to try: the scenario does that itself."""

    def jobs_of(self, plan: Plan) -> int:
        return int((plan.run_dir / "job.json").exists())

    def clean(self) -> None:
        for plan in self._plans:
            while left := processes_of(plan.run_id, None):
                signal_all(left, 9)
                time.sleep(0.05)


class SlurmPlace:
    """The testbed behind its sshd."""

    queues = True

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def plan(self, command: str, *, restore: str | None = None, held: bool = False) -> Plan:
        values = {**self.cluster.values, "max_requeues": 0}
        if held:
            values["additional_parameters"] = {"hold": True}
        return plan_for(values, command, restore=restore)

    def backend(self, plan: Plan) -> Backend:
        return load_backend("slurm", dict(plan.profile_values))

    def drop(self) -> None:
        self.cluster.bed.restart_sshd()

    def jobs_of(self, plan: Plan) -> int:
        return len(self.cluster.jobs_of(plan.run_id))


class HFPlace:
    """A Hub on loopback."""

    queues = True

    def __init__(self, hub: FakeHub) -> None:
        self.hub = hub
        self.values = {
            "executor": "hf_jobs",
            "namespace": "ada",
            "flavor": "cpu-basic",
            "timeout": "30m",
            "container_image": "python:3.12",
        }

    def plan(self, command: str, *, restore: str | None = None, held: bool = False) -> Plan:
        self.hub.held = held
        return plan_for(self.values, command, restore=restore)

    def backend(self, plan: Plan) -> Backend:
        return load_backend("hf_jobs", dict(plan.profile_values))

    def drop(self) -> None:
        """The next stream replays all and is then cut, in the middle of a chunk."""
        self.hub.fault("GET", "/logs$", cut_after=1500, twice=False)

    def jobs_of(self, plan: Plan) -> int:
        labels = [job.spec["labels"]["tunedeck-run"] for job in self.hub.jobs.values()]
        return labels.count(plan.run_id)


@contextlib.contextmanager
def hub_on_loopback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub that the library is pointed at, with its good token in the environment."""
    import huggingface_hub.constants

    # Both are read as the library is imported, which an earlier test may have done.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("HF_HOME", str(folder / "hf_home"))
    hub = FakeHub(folder / "hub")
    hub.start()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield hub
    hub.stop()
    assert hub.errors == []


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have streams opened again, and jobs that end looked at, without a person's patience."""
    monkeypatch.setattr(follow, "REOPEN_S", (0.05,) * 8)
    monkeypatch.setattr(follow, "LOOK_S", 1.0)


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends as it is read
        return False
    return told.rpartition(")")[2].split()[0] != "Z"


Maker = Callable[[pytest.FixtureRequest], Iterator[Place]]


def _local(_request: pytest.FixtureRequest) -> Iterator[Place]:
    place = LocalPlace()
    yield place
    place.clean()


def _slurm(request: pytest.FixtureRequest) -> Iterator[Place]:
    yield SlurmPlace(request.getfixturevalue("cluster"))


def _hf_jobs(request: pytest.FixtureRequest) -> Iterator[Place]:
    monkeypatch = request.getfixturevalue("monkeypatch")
    quick(monkeypatch)
    with hub_on_loopback(request.getfixturevalue("tmp_path"), monkeypatch) as hub:
        yield HFPlace(hub)


def _lepton(request: pytest.FixtureRequest) -> Iterator[Place]:
    from tests.system.clouds.lepton_place import LeptonPlace, workspace_on_loopback

    monkeypatch = request.getfixturevalue("monkeypatch")
    with workspace_on_loopback(request.getfixturevalue("tmp_path"), monkeypatch) as service:
        yield LeptonPlace(service)


def _dgxcloud(request: pytest.FixtureRequest) -> Iterator[Place]:
    from tests.system.clouds.runai_place import RunAIPlace, tenant_on_loopback

    monkeypatch = request.getfixturevalue("monkeypatch")
    with tenant_on_loopback(request.getfixturevalue("tmp_path"), monkeypatch) as service:
        yield RunAIPlace(service)


PLACES: dict[str, Maker] = {
    "local": _local,
    "slurm": _slurm,
    "hf_jobs": _hf_jobs,
    "lepton": _lepton,
    "dgxcloud": _dgxcloud,
}
"""Executor → what makes its place for a test."""
