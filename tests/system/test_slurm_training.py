"""The shipped trainer on the cluster, from the command line to an adapter that is here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.system.conftest import Cluster
from tests.system.testbed import Testbed
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.states import RunState

Command = Callable[..., CompletedProcess[str]]

LAUNCH = ["steps", "run", "peft/automodel", "-c", "tiny"]
PROFILE = "slurm_peft_automodel"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def make_profiles(tunedeck: Command, bed: Testbed) -> None:
    """An env file for the testbed, as the generator makes it from the site's answers."""
    site: dict[str, dict[str, Any]] = {
        "slurm_base": {
            "host": "127.0.0.1",
            "port": bed.ssh_port,
            "user": bed.user,
            "identity": bed.identity,
            "known_hosts": bed.known_hosts,
            "account": "nlp",
            "partition": "batch",
            "workspace": bed.jobs,
            "container_runtime": "none",
            "venv": sys.prefix,
            "secrets": "[]",
        },
        "slurm_peft_automodel": {"nodes": 2, "gpus_per_node": 0, "nproc_per_node": 1},
    }
    words = [f"sections.{name}.{key}={value}" for name, keys in site.items()
             for key, value in keys.items()]  # fmt: skip
    made = tunedeck("env", "init", "-y", "-c", "slurm", *words)
    assert made.returncode == 0, made.stderr


def test_a_generated_profile_trains_on_two_nodes_and_the_adapter_comes_home(
    cluster: Cluster, tunedeck: Command, tmp_path: Path
) -> None:
    bed = cluster.bed
    make_profiles(tunedeck, bed)
    done = tunedeck(*LAUNCH, "-r", PROFILE, "step_scheduler.max_steps=4", timeout=900)
    assert done.returncode == 0, done.stderr
    assert "world_size=2" in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("step=4 epoch=0 loss=")]
    assert "validation loss" in done.stdout  # the result came home for the ending to tell
    record = Registry().list()[0]
    points = json.loads(tunedeck("runs", "metrics", record.run_id, "--json").stdout)
    assert [point["step"] for point in points if "loss" in point] == [1, 2, 3, 4]
    merge = ["steps", "run", "convert/merge_lora", "--from", record.run_id, "--dry-run"]
    early = tunedeck(*merge)
    assert early.returncode == 102, early.stderr
    assert "runs fetch" in early.stderr
    fetched = tunedeck("runs", "fetch", record.run_id)
    assert fetched.returncode == 0, fetched.stderr
    adapter = record.run_dir / "checkpoints" / "latest" / "adapter_model.safetensors"
    there = bed.jobs / "tunedeck" / record.run_id / "checkpoints" / "latest" / adapter.name
    assert adapter.read_bytes() == there.read_bytes()
    assert str(record.run_dir) in tunedeck(*merge, "-c", "tiny").stdout


def losses(log: str) -> list[str]:
    """The training losses of a log, by step, as they were printed."""
    found = (re.match(r"step=(\d+) epoch=\d+ (loss=\S+)", line) for line in log.splitlines())
    return [f"{match[1]} {match[2]}" for match in found if match]


def start(tunedeck: Command, *options: str) -> RunRecord:
    """Start a detached run on two nodes."""
    done = tunedeck(*LAUNCH, "-b", PROFILE, "sampling.prompts=[]", *options, "--json")
    assert done.returncode == 0, done.stderr
    return Registry().get(json.loads(done.stdout)["run_id"])


def wait_for(log: Path, words: bytes) -> None:
    """Wait until a log has it. The test's own time limit ends what never comes."""
    while words not in (log.read_bytes() if log.exists() else b""):
        time.sleep(0.3)


def test_a_detached_run_outlives_its_follower_and_three_restarts_of_the_login(
    cluster: Cluster, tunedeck: Command, tmp_path: Path
) -> None:
    make_profiles(tunedeck, cluster.bed)
    record = start(tunedeck, "step_scheduler.max_steps=40")
    follow = [sys.executable, "-m", "tunedeck", "runs", "logs", "-f", record.run_id]
    follower = subprocess.Popen(follow, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    there = cluster.bed.jobs / "tunedeck" / record.run_id / "log.txt"
    for step in (1, 4, 8):
        wait_for(there, b"\nstep=%d epoch" % step)
        cluster.bed.restart_sshd()
    follower.kill()
    follower.wait()
    again = tunedeck("runs", "logs", "-f", record.run_id, timeout=900)
    assert again.returncode == 0, again.stderr
    assert record.log.read_bytes() == there.read_bytes()
    assert [words.split()[0] for words in losses(again.stdout)] == [str(i) for i in range(1, 41)]
    assert Registry().get(record.run_id).state is RunState.SUCCEEDED
    assert len(cluster.jobs_of(record.run_id)) == 1


def test_told_that_its_time_is_up_it_saves_and_goes_on_with_the_losses_of_an_uninterrupted_run(
    cluster: Cluster, tunedeck: Command
) -> None:
    make_profiles(tunedeck, cluster.bed)
    steps = "step_scheduler.max_steps=60"
    whole, cut = start(tunedeck, steps), None
    done = tunedeck("runs", "wait", whole.run_id, timeout=900)
    assert done.returncode == 0, done.stderr
    cut = start(tunedeck, steps)
    there = cluster.bed.jobs / "tunedeck"
    wait_for(there / cut.run_id / "log.txt", b"\nstep=5 epoch")
    # What --signal has Slurm send some time before the limit.
    assert cut.job_id is not None
    cluster.bed.run("scancel", "--batch", "--signal=USR1", cut.job_id)
    done = tunedeck("runs", "wait", cut.run_id, timeout=900)
    assert done.returncode == 0, done.stderr
    log = (there / cut.run_id / "log.txt").read_text()
    assert "tunedeck: queued again to go on, 1 of at most 3 time(s)" in log
    assert losses(log) == losses((there / whole.run_id / "log.txt").read_text())
    assert len(losses(log)) == 60


def test_an_ended_run_goes_on_from_its_last_checkpoint(cluster: Cluster, tunedeck: Command) -> None:
    make_profiles(tunedeck, cluster.bed)
    first = start(tunedeck, "step_scheduler.max_steps=3")
    assert tunedeck("runs", "wait", first.run_id, timeout=900).returncode == 0
    more = tunedeck("runs", "resume", first.run_id, "step_scheduler.max_steps=6", timeout=900)
    assert more.returncode == 0, more.stderr
    second = Registry().list()[0]
    assert second.run_id != first.run_id
    assert tunedeck("runs", "wait", second.run_id, timeout=900).returncode == 0
    log = (cluster.bed.jobs / "tunedeck" / second.run_id / "log.txt").read_text()
    assert [words.split()[0] for words in losses(log)] == ["4", "5", "6"]
