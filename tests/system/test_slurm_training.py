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


def test_a_run_trains_there_and_its_adapter_comes_home(
    cluster: Cluster, tunedeck: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    env_file = tmp_path / "env.toml"
    venv = json.dumps(sys.prefix)
    env_file.write_text(cluster.bed.profile("bed", nodes="1", venv=venv, time='"00:20:00"'))
    options = ["step_scheduler.max_steps=4", "sampling.prompts=[]", "run.env.mem=0"]
    launch = ["steps", "run", "peft/automodel", "-c", "tiny", "-r", "bed", "--env-file", env_file]
    done = tunedeck(*launch, *options, timeout=500)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("step=4 epoch=0 loss=")]
    record = Registry().list()[0]
    points = json.loads(tunedeck("runs", "metrics", record.run_id, "--json").stdout)
    assert len([point for point in points if "loss" in json.dumps(point)]) >= 4
    fetched = tunedeck("runs", "fetch", record.run_id)
    assert fetched.returncode == 0, fetched.stderr
    adapter = record.run_dir / "checkpoints" / "latest" / "adapter_model.safetensors"
    there = cluster.bed.jobs / record.run_id / "checkpoints" / "latest" / adapter.name
    assert adapter.read_bytes() == there.read_bytes()
