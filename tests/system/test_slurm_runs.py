from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.system.conftest import LIMIT_S, Cluster
from tunedeck.core.backends.base import Handle, LogLine
from tunedeck.core.backends.slurm.backend import SlurmBackend
from tunedeck.core.errors import ReachError, UsageError
from tunedeck.core.logs.spool import bring_home
from tunedeck.core.plan import Launch, SecretRef
from tunedeck.core.ssh import Done
from tunedeck.core.ssh.remote import RemoteMachine
from tunedeck.core.states import RunState

pytestmark = pytest.mark.slow

Script = Callable[[str], str]

UNTIL_TOLD = "until [ -e go ]; do sleep 0.2; done"
"""Of a job that must not end before the test has done its part."""


async def log_of(backend: SlurmBackend, handle: Handle) -> list[bytes]:
    async def collect() -> list[LogLine]:
        return [line async for line in backend.logs(handle, None, follow=True)]

    return [entry.line for entry in await asyncio.wait_for(collect(), LIMIT_S)]


async def test_a_command_runs_on_every_node_with_a_common_rendezvous(cluster: Cluster) -> None:
    command = "echo node $SLURM_NODEID meets at $MASTER_ADDR:$MASTER_PORT"
    backend, handle = await cluster.submit(command, nodes=2)
    lines = await log_of(backend, handle)
    status = await cluster.end(backend, handle)
    assert (status.state, status.exit_code) == (RunState.SUCCEEDED, 0)
    assert lines[-1] == b"tunedeck: exit=0"
    other = (cluster.folder(handle) / "node_1.txt").read_bytes().splitlines()
    told = [line for line in lines if line.startswith(b"node 0")]  # srun may say something first
    assert [line.removeprefix(b"node 0") for line in told] == [other[0].removeprefix(b"node 1")]


async def test_a_failure_keeps_its_exit_code_also_where_a_launcher_changes_it(
    cluster: Cluster,
) -> None:
    backend, handle = await cluster.submit("echo 7 > $TUNEDECK_EXIT_FILE; exit 1")
    status = await cluster.end(backend, handle)
    assert (status.state, status.exit_code) == (RunState.FAILED, 7)


async def test_a_failure_on_another_node_is_shown_in_the_log(cluster: Cluster) -> None:
    command = "if [ $SLURM_NODEID = 1 ]; then echo the cause; exit 5; fi; sleep 30"
    backend, handle = await cluster.submit(command, nodes=2)
    lines = await log_of(backend, handle)
    assert b"the cause" in lines
    assert any(b"node 1" in line and b"ended with 5" in line for line in lines)
    status = await cluster.end(backend, handle)
    assert (status.state, status.exit_code) == (RunState.FAILED, 5)


async def test_each_task_of_an_array_has_a_folder_and_a_log_of_its_own(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hidden")
    command = (
        '[ "$MY_TOKEN" = hidden ] || exit 8; echo task $SLURM_ARRAY_TASK_ID;'
        " pwd > $TUNEDECK_RUN_DIR/where; exit $SLURM_ARRAY_TASK_ID"
    )
    backend, handle = await cluster.submit(
        command, array="0,4-5%1", secrets=[SecretRef("MY_TOKEN", "MY_TOKEN")], max_requeues=0
    )
    status = await cluster.end(backend, handle)
    folder = cluster.folder(handle)
    assert status.state is RunState.FAILED
    for task in (0, 4, 5):
        own = folder / f"task_{task}"
        assert (own / "where").read_text().strip() == str(own)
        assert f"task {task}" in (own / "log.txt").read_text().splitlines()
        assert json.loads((own / "exit.json").read_text())["exit_code"] == task
    assert b"task 0" in await log_of(backend, handle)
    assert not (folder / "secrets.sh").exists()
    forgotten = Handle(handle.run_id, "99996", handle.data)
    assert (await backend.status(forgotten)).exit_code == 4


async def test_submitted_twice_it_is_one_job(cluster: Cluster) -> None:
    plan = cluster.plan("sleep 600")
    backend = cluster.backend(plan)
    submission = backend.render(plan)
    first, second = await asyncio.gather(backend.submit(submission), backend.submit(submission))
    assert first.job_id == second.job_id
    assert cluster.jobs_of(plan.run_id) == [first.job_id]
    await backend.cancel(first)


async def test_a_job_whose_answer_was_lost_is_found_and_not_sent_again(cluster: Cluster) -> None:
    plan = cluster.plan("sleep 600")
    backend = cluster.backend(plan)
    submission = backend.render(plan)
    handle = await backend.submit(submission)
    (cluster.folder(handle) / "job_id").unlink()
    found = await backend.find(plan.run_id, plan.run_dir)
    assert found is not None
    assert found.job_id == handle.job_id
    (cluster.folder(handle) / "job_id").unlink()
    assert (await backend.submit(submission)).job_id == handle.job_id
    await backend.cancel(handle)


async def test_a_run_that_was_never_sent_is_not_found(cluster: Cluster) -> None:
    plan = cluster.plan("true")
    assert await cluster.backend(plan).find(plan.run_id, plan.run_dir) is None


async def test_a_secret_reaches_the_job_and_stays_nowhere(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "a'b $c")
    plan = cluster.plan(
        f'{UNTIL_TOLD}; [ "$MY_TOKEN" = "a\'b \\$c" ]',
        secrets=[SecretRef("MY_TOKEN", "MY_TOKEN")],
    )
    backend = cluster.backend(plan)
    handle = await backend.submit(backend.render(plan))
    file = cluster.folder(handle) / "secrets.sh"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (cluster.folder(handle) / "go").touch()
    assert (await cluster.end(backend, handle)).state is RunState.SUCCEEDED
    assert not file.exists()
    for path in cluster.folder(handle).iterdir():
        assert not path.is_file() or b"a'b $c" not in path.read_bytes()


async def test_secrets_of_a_killed_job_are_removed_when_it_is_looked_at_or_another_is_sent(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hidden")
    kept = []
    for _ in range(2):
        backend, handle = await cluster.submit(
            "echo begun; sleep 600", secrets=[SecretRef("MY_TOKEN", "MY_TOKEN")]
        )
        folder = cluster.folder(handle)
        await cluster.until(backend, handle, lambda _: (folder / "log.txt").stat().st_size > 0)  # noqa: B023
        cluster.bed.run("scancel", handle.job_id)
        while not (folder / "exit.json").exists():
            await asyncio.sleep(0.2)
        kept.append((handle, folder / "secrets.sh"))
    (first, seen), (_, unseen) = kept
    await cluster.end(backend, first)
    assert not seen.exists()
    # As if Slurm had forgotten the job.
    (unseen.parent / "job_id").write_text("99997\n")
    _, other = await cluster.submit("true")
    assert not unseen.exists()
    await cluster.end(backend, other)


async def test_cancelled_here_it_is_over_when_cancel_returns(cluster: Cluster) -> None:
    backend, handle = await cluster.submit("sleep 600")
    await cluster.until(backend, handle, lambda status: status.state is RunState.RUNNING)
    status = await backend.cancel(handle)
    assert status.state is RunState.CANCELLED
    assert not cluster.bed.run("squeue", "-h", "-j", handle.job_id, "-t", "RUNNING,COMPLETING")


async def test_cancelled_from_outside_it_is_told_so(cluster: Cluster) -> None:
    backend, handle = await cluster.submit("sleep 600")
    await cluster.until(backend, handle, lambda status: status.state is RunState.RUNNING)
    cluster.bed.run("scancel", handle.job_id)
    assert (await cluster.end(backend, handle)).state is RunState.CANCELLED


async def test_a_killed_process_ends_the_run_with_a_reason(
    cluster: Cluster, script: Script
) -> None:
    command = script("import os, time; print('pid', os.getpid(), flush=True); time.sleep(600)")
    backend, handle = await cluster.submit(f"exec {command}")
    log = cluster.folder(handle) / "log.txt"
    while b"pid " not in log.read_bytes():
        await asyncio.sleep(0.2)
    os.kill(int(log.read_bytes().split()[1]), signal.SIGKILL)
    status = await cluster.end(backend, handle)
    assert (status.state, status.exit_code) == (RunState.FAILED, 137)
    assert "signal 9" in status.reason


async def test_exit_75_queues_the_job_again_and_it_goes_on_from_its_checkpoint(
    cluster: Cluster,
) -> None:
    command = (
        "mkdir -p checkpoints/latest; echo attempt $SLURM_RESTART_COUNT with {config};"
        " [ $SLURM_RESTART_COUNT = 1 ] || exit 75"
    )
    backend, handle = await cluster.submit(command)
    lines = await log_of(backend, handle)
    assert (await cluster.end(backend, handle)).state is RunState.SUCCEEDED
    told = [line for line in lines if line.startswith(b"attempt")]
    assert [line.rpartition(b"/")[2] for line in told] == [b"config.yaml", b"resume.yaml"]
    assert sum(line.startswith(b"tunedeck: exit=") for line in lines) == 1
    assert (
        "restore_from: " + str(cluster.folder(handle) / "checkpoints")
        in (cluster.folder(handle) / "resume.yaml").read_text()
    )


async def test_without_requeues_exit_75_is_preempted(cluster: Cluster) -> None:
    backend, handle = await cluster.submit("exit 75", max_requeues=0)
    status = await cluster.end(backend, handle)
    assert (status.state, status.exit_code) == (RunState.PREEMPTED, 75)


async def test_every_line_comes_home_once_over_restarts_of_sshd(
    cluster: Cluster, tmp_path: Path
) -> None:
    command = "for i in $(seq 1 400); do echo line $i; sleep 0.05; done"
    backend, handle = await cluster.submit(command)
    home = tmp_path / "log.txt"
    copying = asyncio.create_task(bring_home(handle, backend, home, lambda _: None))
    for _ in range(3):
        await asyncio.sleep(4)
        cluster.bed.restart_sshd()
    await asyncio.wait_for(copying, LIMIT_S)
    assert home.read_bytes() == (cluster.folder(handle) / "log.txt").read_bytes()
    assert home.read_bytes().count(b"line ") == 400
    assert cluster.jobs_of(handle.run_id) == [handle.job_id]


async def test_an_unknown_partition_is_refused_and_leaves_nothing(cluster: Cluster) -> None:
    plan = cluster.plan("true", partition="nosuch")
    backend = cluster.backend(plan)
    with pytest.raises(UsageError, match="partition"):
        await backend.submit(backend.render(plan))
    assert cluster.jobs_of(plan.run_id) == []
    assert not (cluster.bed.jobs / plan.run_id).exists()
    assert list((cluster.bed.jobs / ".tunedeck" / "incoming").iterdir()) == []


async def test_preflight_tells_a_missing_mount_partition_and_venv(cluster: Cluster) -> None:
    plan = cluster.plan("true", partition="nosuch", mounts=["/no/such:/d"], venv="/no/venv")
    found = await cluster.backend(plan).preflight(plan)
    errors = {finding.key for finding in found if finding.severity == "error"}
    assert {"partition", "mounts", "venv"} <= errors


async def test_preflight_tells_what_a_partition_will_never_start(cluster: Cluster) -> None:
    plan = cluster.plan("true", partition="short", time="02:00:00", nodes=2)
    plan = replace(plan, launch=replace(plan.launch, gpus_per_node=4))
    found = await cluster.backend(plan).preflight(plan)
    errors = {finding.key: finding.message for finding in found if finding.severity == "error"}
    assert "00:01:00" in errors["time"]
    assert "4 are asked for" in errors["gpus_per_node"]


async def test_preflight_looks_for_torch_where_no_container_brings_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    for venv, lacks in ((tmp_path / "v", True), (Path(sys.prefix), False)):
        plan = cluster.plan("", venv=str(venv))
        plan = replace(plan, launch=Launch("torchrun", "tunedeck.trainer", ("sft",)))
        found = await cluster.backend(plan).preflight(plan)
        messages = [finding.message for finding in found if finding.severity == "error"]
        assert [message for message in messages if "torch" in message] == (
            [f"{venv}/bin/python over there has no torch."] if lacks else []
        )


async def test_preflight_has_a_node_look_for_what_the_login_wrote(
    cluster: Cluster, tmp_path: Path
) -> None:
    shared = tmp_path / "jobs"
    plan = cluster.plan("true", remote_job_dir=str(shared))
    await cluster.backend(plan).preflight(plan)
    assert (shared / ".tunedeck" / "seen_by_batch").exists()
    assert not list((shared / ".tunedeck").glob("canary*"))


async def test_preflight_refuses_a_folder_that_nodes_do_not_see(
    cluster: Cluster, tmp_path: Path
) -> None:
    # By this path the login's shell finds its home, and a node, which starts in /, something else.
    home, name = Path(pwd.getpwuid(os.getuid()).pw_dir), f"not-shared-{os.getpid()}"
    (home / name / ".tunedeck").mkdir(parents=True)
    plan = cluster.plan("true", remote_job_dir=f"/proc/self/cwd/{name}")
    try:
        found = await cluster.backend(plan).preflight(plan)
    finally:
        shutil.rmtree(home / name)
    assert any("does not see" in finding.message for finding in found)


async def test_preflight_of_what_fits_names_the_start(cluster: Cluster) -> None:
    plan = cluster.plan("true", nodes=2)
    found = await cluster.backend(plan).preflight(plan)
    assert not [finding for finding in found if finding.severity == "error"]
    assert any("to start at" in finding.message for finding in found)
    assert cluster.jobs_of(plan.run_id) == []


async def test_without_a_record_the_last_word_counts(cluster: Cluster) -> None:
    backend, handle = await cluster.submit("exit 3")
    await cluster.end(backend, handle)
    purged = Handle(handle.run_id, "99999", handle.data)
    status = await backend.status(purged)
    assert (status.state, status.exit_code) == (RunState.FAILED, 3)
    nowhere = Handle(handle.run_id, "99998", {"run_dir": "/nonexistent"})
    assert (await backend.status(nowhere)).state is RunState.LOST


async def test_a_controller_that_is_away_changes_no_state(cluster: Cluster) -> None:
    backend, handle = await cluster.submit(f"echo begun; {UNTIL_TOLD}; echo over")
    log = cluster.folder(handle) / "log.txt"
    await cluster.until(backend, handle, lambda _: b"begun" in log.read_bytes())
    cluster.bed.stop_daemon("slurmctld")
    try:
        with pytest.raises(ReachError, match="controller"):
            await backend.status(handle)
        (cluster.folder(handle) / "go").touch()
        while b"tunedeck: exit=0" not in log.read_bytes():
            await asyncio.sleep(0.2)
        with pytest.raises(ReachError, match="controller"):
            await backend.status(handle)
    finally:
        cluster.bed.start_controller()
    assert (await cluster.end(backend, handle)).state is RunState.SUCCEEDED
    told = [line for line in log.read_bytes().splitlines() if not line.startswith(b"srun")]
    assert told == [b"begun", b"over", b"tunedeck: exit=0"]


async def test_a_controller_that_is_away_as_the_step_begins_is_waited_for(
    cluster: Cluster,
) -> None:
    backend, handle = await cluster.submit("echo trained", setup_lines=[UNTIL_TOLD])
    await cluster.until(backend, handle, lambda status: status.state is RunState.RUNNING)
    log = cluster.folder(handle) / "log.txt"
    cluster.bed.stop_daemon("slurmctld")
    try:
        (cluster.folder(handle) / "go").touch()
        while b"waiting for it" not in log.read_bytes():
            await asyncio.sleep(0.2)
    finally:
        cluster.bed.start_controller()
    status = await cluster.end(backend, handle)
    assert (status.state, status.exit_code) == (RunState.SUCCEEDED, 0)
    assert log.read_bytes().splitlines().count(b"trained") == 1


async def test_twenty_runs_are_followed_over_one_connection_and_asked_for_in_one_round_trip(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, handle = await cluster.submit(f"echo line; {UNTIL_TOLD}")
    handles = [replace(handle, job_id=str(int(handle.job_id) + 1000 * i)) for i in range(20)]
    asked: list[str] = []
    run = RemoteMachine.run

    async def count(machine: RemoteMachine, script: str) -> Done:
        asked.append(script)
        return await run(machine, script)

    monkeypatch.setattr(RemoteMachine, "run", count)
    found = await asyncio.gather(*(cluster.backend(cluster.plan("")).status(h) for h in handles))
    assert len(found) == 20
    assert len(asked) == 1
    following = [
        asyncio.create_task(log_of(cluster.backend(cluster.plan("")), handle)) for _ in range(20)
    ]
    await cluster.until(backend, handle, lambda status: status.state is RunState.RUNNING)
    listed = subprocess.run(
        ["ss", "-tnpH", "state", "established", "dport", "=", f":{cluster.bed.ssh_port}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert listed.count(f"pid={os.getpid()},") == 1
    (cluster.folder(handle) / "go").touch()
    logs = await asyncio.gather(*following)
    assert all(log == logs[0] and b"line" in log for log in logs)


async def test_the_inventory_names_partitions_and_my_jobs(cluster: Cluster) -> None:
    backend, handle = await cluster.submit("sleep 600")
    found = await backend.inventory(cluster.values)
    assert {part["name"] for part in found["partitions"]} == {"batch", "short"}
    assert handle.job_id in [job["job_id"] for job in found["jobs"]]
    await backend.cancel(handle)


async def test_the_same_code_runs_slurm_on_this_machine(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(cluster.bed.conf))
    backend, handle = await cluster.submit("echo here", tunnel="local")
    assert b"here" in await log_of(backend, handle)
    assert (await cluster.end(backend, handle)).state is RunState.SUCCEEDED


async def test_before_the_time_limit_the_run_is_asked_to_save_and_queued_again(
    cluster: Cluster, script: Script
) -> None:
    command = script(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))\n"
        "assert time.time() < float(os.environ['TUNEDECK_DEADLINE']) < time.time() + 60\n"
        "time.sleep(0 if os.environ['SLURM_RESTART_COUNT'] == '1' else 300)\n"
    )
    command = f"export SLURM_RESTART_COUNT=${{SLURM_RESTART_COUNT:-0}}; exec {command}"
    backend, handle = await cluster.submit(command, time="00:01:00", signal="B:USR1@35")
    lines = await log_of(backend, handle)
    assert (await cluster.end(backend, handle)).state is RunState.SUCCEEDED
    assert b"tunedeck: the job is about to be ended; the run is asked to save" in lines
    assert b"tunedeck: queued again to go on, 1 of at most 3 time(s)" in lines


APPTAINER = """\
#!/bin/bash
# What the job asks of Apptainer, by the kernel's own means: a mount namespace with the binds.
[ "$1" = exec ] || exit 64
shift
binds=()
while [ $# -gt 0 ]; do
  case $1 in
    --pwd) pwd=$2; shift 2 ;;
    --bind) binds+=("$2"); shift 2 ;;
    --nv) shift ;;
    *) image=$1; shift; break ;;
  esac
done
export IMAGE=$image PLACE=$pwd BINDS="${binds[*]}"
exec unshare --mount bash -c '
  for bind in $BINDS; do
    source=${bind%%:*} target=${bind#*:} options=
    case $target in *:ro) options=ro target=${target%:ro} ;; esac
    mkdir -p "$target"
    mount --bind "$source" "$target" || exit 70
    [ -z "$options" ] || mount -o remount,bind,ro "$target" || exit 70
  done
  cd "$PLACE" && exec "$@"' - "$@"
"""


async def test_a_job_runs_in_an_image_by_apptainer_with_its_mounts(
    cluster: Cluster, tmp_path: Path
) -> None:
    # Debian has no Apptainer: a stand-in takes its command line, and mounts what that says.
    probe = ["unshare", "--mount", "mount", "--bind", str(tmp_path), str(tmp_path)]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets us mount nothing")
    tool = tmp_path / "bin" / "apptainer"
    tool.parent.mkdir()
    tool.write_text(APPTAINER)
    tool.chmod(0o755)
    data, inside = tmp_path / "data", tmp_path / "inside"
    data.mkdir()
    (data / "rows").write_text("rows of data\n")
    command = f"echo in $IMAGE at $PWD; cat {inside}/rows; touch {inside}/new || echo read-only"
    backend, handle = await cluster.submit(
        command,
        container_runtime="apptainer",
        container_image="registry/image:1",
        mounts=[f"{data}:{inside}:ro"],
        setup_lines=[f"export PATH={tool.parent}:$PATH"],
    )
    lines = await log_of(backend, handle)
    assert (await cluster.end(backend, handle)).state is RunState.SUCCEEDED, lines
    folder = cluster.folder(handle)
    assert f"in docker://registry/image:1 at {folder}".encode() in lines
    assert b"rows of data" in lines
    assert b"read-only" in lines
    assert not list(inside.iterdir())
