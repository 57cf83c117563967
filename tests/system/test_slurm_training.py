"""The shipped trainer on the cluster, from the command line to an adapter that is here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.system.conftest import Cluster
from tunedeck.core.registry import Registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_generated_profile_trains_on_two_nodes_and_the_adapter_comes_home(
    cluster: Cluster, tunedeck: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    bed = cluster.bed
    site = {
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
    launch = ["steps", "run", "peft/automodel", "-c", "tiny", "-r", "slurm_peft_automodel"]
    done = tunedeck(*launch, "step_scheduler.max_steps=4", timeout=900)
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
