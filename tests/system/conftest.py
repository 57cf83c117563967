"""A testbed for the tests that need a real cluster behind a real login."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.testbed import Testbed, missing_programs
from tunedeck.core import locations
from tunedeck.core.backends.base import Handle
from tunedeck.core.backends.slurm.backend import SlurmBackend
from tunedeck.core.plan import Launch, Plan, digest_of, new_run_id
from tunedeck.core.states import Status

LIMIT_S = 400.0
"""For what comes when it comes; a controller that was away takes minutes to hear of its nodes."""


def _why_not(*, accounting: bool = False) -> str:
    if missing := missing_programs(accounting=accounting):
        return f"needs a Slurm and an sshd: {', '.join(missing)} not installed (see docs/slurm.md)"
    return "" if os.geteuid() == 0 else "munged, slurmd and sshd want to be started by root here"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A real daemon may stall for seconds on a busy machine: each test here has a second try.

    A run that needed one says so (`R` and the count of reruns); a fault of ours fails twice.
    """
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.flaky(reruns=1))
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(2 * LIMIT_S))


@pytest.fixture(scope="session")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    if reason := _why_not():
        pytest.skip(reason)
    bed = Testbed(tmp_path_factory.mktemp("bed"))
    bed.start()
    yield bed
    bed.stop()


@pytest.fixture(scope="session")
def accounted_testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """One with slurmdbd, which refuses accounts, and a controller that forgets jobs at once."""
    if reason := _why_not(accounting=True):
        pytest.skip(reason)
    bed = Testbed(tmp_path_factory.mktemp("accounted"), accounting=True, min_job_age=2)
    bed.start()
    yield bed
    bed.stop()


class Cluster:
    """The testbed as a backend sees it, and jobs that are small shell scripts."""

    def __init__(self, bed: Testbed, home: Path) -> None:
        self.bed, self.home = bed, home
        self.values: dict[str, Any] = {
            "executor": "slurm",
            "host": "127.0.0.1",
            "port": bed.ssh_port,
            "user": bed.user,
            "identity": str(bed.identity),
            "known_hosts": str(bed.known_hosts),
            "partition": "batch",
            "remote_job_dir": str(bed.jobs),
            "container_runtime": "none",
            "time": "00:10:00",
        }

    def plan(self, command: str, *, nodes: int = 1, secrets: Any = (), **values: Any) -> Plan:
        run_id = new_run_id()
        return Plan(
            run_id=run_id,
            name="system test",
            step="peft/automodel",
            step_source="shipped",
            config_name="tiny",
            config={"checkpoint": {"checkpoint_dir": None, "restore_from": None}},
            profile="testbed",
            executor="slurm",
            profile_values={**self.values, "run_command": command, **values},
            launch=Launch("command", "tunedeck.trainer", ("sft",), nodes),
            env={},
            secrets=tuple(secrets),
            inputs=(),
            run_dir=locations.run_dir(run_id),
            digest=digest_of(command),
            created_at=time.time(),
        )

    def backend(self, plan: Plan) -> SlurmBackend:
        return SlurmBackend(dict(plan.profile_values))

    async def submit(self, command: str, **values: Any) -> tuple[SlurmBackend, Handle]:
        plan = self.plan(command, **values)
        backend = self.backend(plan)
        return backend, await backend.submit(backend.render(plan))

    async def until(
        self, backend: SlurmBackend, handle: Handle, right: Callable[[Status], bool]
    ) -> Status:
        import asyncio

        deadline = time.monotonic() + LIMIT_S
        while not right(status := await backend.status(handle)):
            assert time.monotonic() < deadline, status
            await asyncio.sleep(0.3)
        return status

    async def end(self, backend: SlurmBackend, handle: Handle) -> Status:
        return await self.until(backend, handle, lambda status: status.state.terminal)

    def folder(self, handle: Handle) -> Path:
        return Path(handle.data["run_dir"])

    def jobs_of(self, run_id: str) -> list[str]:
        listed = self.bed.run("squeue", "-h", "--states=all", "-o", "%i %k").splitlines()
        return [line.split()[0] for line in listed if f"tunedeck:{run_id}" in line]


@pytest.fixture
def cluster(testbed: Testbed, home: Path) -> Cluster:
    return Cluster(testbed, home)


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """A Python script as a job's command."""

    def make(text: str) -> str:
        path = tmp_path / "job.py"
        path.write_text(text)
        return shlex.join([sys.executable, str(path)])

    return make


def ssh_keygen(path: Path) -> Path:
    """Make a key pair."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path
