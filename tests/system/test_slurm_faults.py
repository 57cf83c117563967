"""What goes wrong on a cluster: each ends in the right state, with a reason that helps."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import LIMIT_S, Cluster
from tunedeck.core.errors import TunedeckError, UsageError
from tunedeck.core.plan import SecretRef
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this machine lets us mount nothing")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def test_a_node_that_dies_fails_the_run_and_says_so(cluster: Cluster) -> None:
    backend, handle = await cluster.submit("echo begun; sleep 900", nodes=2, max_requeues=0)
    other = cluster.folder(handle) / "node_1.txt"
    await cluster.until(backend, handle, lambda _: other.exists() and other.stat().st_size > 0)
    cluster.bed.kill_node("n2")
    try:
        status = await cluster.end(backend, handle)
    finally:
        cluster.bed.start_node("n2")
        cluster.bed.wait_until_idle()
    assert status.state is RunState.FAILED
    assert "node" in status.reason
    assert "n2" in status.reason


async def test_a_job_that_has_lost_a_node_goes_on_with_its_secrets_when_there_are_nodes_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hidden")
    backend, handle = await cluster.submit(
        '[ "$MY_TOKEN" = hidden ] || exit 8; echo begun; '
        '[ "$SLURM_RESTART_COUNT" = 1 ] || sleep 900',
        nodes=2,
        secrets=[SecretRef("MY_TOKEN", "MY_TOKEN")],
    )
    log, other = (cluster.folder(handle) / name for name in ("log.txt", "node_1.txt"))
    await cluster.until(backend, handle, lambda _: other.exists() and other.stat().st_size > 0)
    cluster.bed.kill_node("n2")
    try:
        await cluster.until(backend, handle, lambda status: status.state is RunState.QUEUED)
    finally:
        cluster.bed.start_node("n2")
    assert (await cluster.end(backend, handle)).state is RunState.SUCCEEDED
    assert "the job has lost n2" in log.read_text()
    assert cluster.jobs_of(handle.run_id) == [handle.job_id]


async def test_a_full_disk_stops_a_submission_and_leaves_no_job(
    cluster: Cluster, small_disk: Path
) -> None:
    (small_disk / "filler").write_bytes(b"x" * (8 << 20))
    plan = cluster.plan("true", remote_job_dir=str(small_disk))
    backend = cluster.backend(plan)
    with pytest.raises(TunedeckError, match=r"disk|space"):
        await backend.submit(backend.render(plan))
    assert cluster.jobs_of(plan.run_id) == []


async def test_a_disk_that_fills_up_still_takes_the_last_word(
    cluster: Cluster, small_disk: Path
) -> None:
    command = "head -c 30000000 /dev/zero > filler; exit 9"
    backend, handle = await cluster.submit(command, remote_job_dir=str(small_disk))
    status = await cluster.end(backend, handle)
    assert (status.state, status.exit_code) == (RunState.FAILED, 9)
    assert json.loads((cluster.folder(handle) / "exit.json").read_text())["exit_code"] == 9


async def test_a_host_without_slurm_is_a_usage_error(cluster: Cluster) -> None:
    from tunedeck.core.backends.slurm.shell import FIND_SLURM, run_slurm

    class Elsewhere:
        name = "login"

        async def run(self, script: str) -> object:
            machine = cluster.backend(cluster.plan("true"))._machine
            bare = "PATH=/nonexistent\n" + script.replace("/etc/profile", "/nonexistent")
            assert script.startswith(FIND_SLURM)
            return await machine.run(bare)

    with pytest.raises(UsageError, match="no sbatch on the PATH"):
        await run_slurm(Elsewhere(), "true")  # type: ignore[arg-type]  # only run is asked for


async def test_a_launcher_that_is_killed_leaves_one_job_that_others_can_follow(
    cluster: Cluster, tmp_path: Path, home: Path
) -> None:
    env_file = tmp_path / "env.toml"
    command = "for i in $(seq 60); do echo line $i; sleep 0.1; done"
    env_file.write_text(
        cluster.bed.profile("bed", nodes="1", run_command=json.dumps(command), time='"00:05:00"')
    )
    tunedeck = str(Path(sys.executable).with_name("tunedeck"))
    launch = ["steps", "run", "peft/automodel", "-c", "tiny", "-r", "bed", "--env-file"]
    launcher = subprocess.Popen(
        [tunedeck, *launch, str(env_file)], stdout=subprocess.PIPE, cwd=tmp_path
    )
    assert launcher.stdout is not None
    while b"line 5" not in launcher.stdout.readline():
        pass
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    record = Registry().list()[0]
    followed = await asyncio.create_subprocess_exec(
        tunedeck, "runs", "logs", "-f", record.run_id, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(followed.communicate(), LIMIT_S)
    assert followed.returncode == 0
    told = [line for line in out.splitlines() if line.startswith(b"line ")]
    assert told == [b"line %d" % i for i in range(1, 61)]
    assert len(cluster.jobs_of(record.run_id)) == 1
    assert Registry().get(record.run_id).state is RunState.SUCCEEDED
