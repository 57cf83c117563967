"""A cluster with slurmdbd: accounts are checked, and sacct knows what the controller forgot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.system.conftest import Cluster
from tests.system.testbed import Testbed
from tunedeck.core.backends.base import Handle
from tunedeck.core.backends.slurm.backend import SlurmBackend
from tunedeck.core.errors import UsageError
from tunedeck.core.states import RunState, Status

pytestmark = pytest.mark.slow


@pytest.fixture
def accounted(accounted_testbed: Testbed, home: Path) -> Cluster:
    return Cluster(accounted_testbed, home)


async def forgotten(cluster: Cluster, backend: SlurmBackend, handle: Handle) -> Status:
    """What is told of a job when Slurm's controller has forgotten it and it left no word."""
    (cluster.folder(handle) / "exit.json").unlink(missing_ok=True)
    while handle.job_id in cluster.bed.run("squeue", "-h", "--states=all", "-o", "%i").split():
        await asyncio.sleep(0.5)
    (cluster.folder(handle) / "exit.json").unlink(missing_ok=True)
    return await cluster.end(backend, handle)


@pytest.mark.parametrize(
    ("command", "state", "code"),
    [("true", RunState.SUCCEEDED, 0), ("exit 3", RunState.FAILED, 3)],
)
async def test_sacct_tells_how_a_forgotten_job_ended(
    accounted: Cluster, command: str, state: RunState, code: int
) -> None:
    backend, handle = await accounted.submit(command, account="nlp")
    await accounted.end(backend, handle)
    status = await forgotten(accounted, backend, handle)
    assert (status.state, status.exit_code) == (state, code)
    assert status.started_at is not None
    assert status.ended_at is not None


async def test_sacct_tells_who_cancelled_a_forgotten_job(accounted: Cluster) -> None:
    backend, handle = await accounted.submit("sleep 600", account="nlp")
    await accounted.until(backend, handle, lambda status: status.state is RunState.RUNNING)
    accounted.bed.run("scancel", handle.job_id)
    status = await forgotten(accounted, backend, handle)
    assert status.state is RunState.CANCELLED
    assert "by 0" in status.reason


async def test_an_account_that_is_not_ours_is_refused_and_leaves_nothing(
    accounted: Cluster,
) -> None:
    plan = accounted.plan("true", account="someone-elses")
    backend = accounted.backend(plan)
    errors = [f for f in await backend.preflight(plan) if f.severity == "error"]
    assert [finding.key for finding in errors] == ["account"]
    with pytest.raises(UsageError, match="account"):
        await backend.submit(backend.render(plan))
    assert accounted.jobs_of(plan.run_id) == []
    assert not (accounted.bed.jobs / plan.run_id).exists()
