"""A user's own command on the cluster, by Tunedeck's command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.system.conftest import Cluster
from tunedeck.core.runs.registry import Registry

pytestmark = pytest.mark.slow

Command = Callable[..., CompletedProcess[str]]


def launch(cluster: Cluster, tunedeck: Command, folder: Path, command: str, **values: str) -> str:
    """Run a command attached, and return the run's id."""
    env_file = folder / "env.toml"
    env_file.write_text(cluster.bed.profile("bed", run_command=json.dumps(command), **values))
    words = ["steps", "run", "peft/automodel", "-c", "tiny", "-r", "bed", "--env-file", env_file]
    done = tunedeck(*words, timeout=400)
    assert done.returncode == 0, done.stderr
    return Registry().list()[0].run_id


def test_the_log_of_each_node_can_be_chosen(
    cluster: Cluster, tunedeck: Command, tmp_path: Path
) -> None:
    command = "echo node $SLURM_NODEID says hello; echo and goodbye"
    run_id = launch(cluster, tunedeck, tmp_path, command)
    for follow in ((), ("-f",)):
        second = tunedeck("runs", "logs", run_id, "--node", "1", *follow)
        assert second.returncode == 0, second.stderr
        assert second.stdout == "node 1 says hello\nand goodbye\n"
    first = tunedeck("runs", "logs", run_id, "--node", "0")
    assert "node 0 says hello\nand goodbye\n" in first.stdout
    refused = tunedeck("runs", "logs", run_id, "--node", "2")
    assert refused.returncode == 2
    assert "2 nodes" in refused.stderr


def test_a_step_of_ones_own_runs_there_with_what_lies_beside_it(
    cluster: Cluster, tunedeck: Command, tmp_path: Path
) -> None:
    step = tmp_path / "catalog" / "mine" / "greet"
    (step / "config").mkdir(parents=True)
    (step / "step.toml").write_text(
        '[step]\nid = "mine/greet"\nname = "Greet"\ncategory = "mine"\n'
        'description = "Says hello."\n'
    )
    (step / "step.py").write_text(
        '# /// script\n# [tool.runspec]\n# [tool.runspec.run]\n# launch = "python"\n# ///\n'
        "import sys\nimport words\n\nprint(words.HELLO, sys.argv[1])\n"
    )
    (step / "words.py").write_text("HELLO = 'hello from beside'\n")
    (step / "config" / "default.yaml").write_text("greeting: there\n")
    env_file = tmp_path / "env.toml"
    env_file.write_text(cluster.bed.profile("bed", nodes="1"))
    done = tunedeck(
        *("steps", "run", "mine/greet", "-c", "default", "-r", "bed"),
        *("--catalog", tmp_path / "catalog", "--env-file", env_file),
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert "hello from beside --config" in done.stdout
