from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

BENCHMARK = Path(__file__).parents[2] / "benchmarks/trainer_vs_trl.py"
STEPS = 12
CASES = ("padded-1.3M", "packed-1.3M")


def train(side: str, work: Path, options: tuple[str, ...]) -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARK), f"--side={side}", f"--work={work}"]
    done = subprocess.run(
        [*command, f"--steps={STEPS}", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=300,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.slow
@pytest.mark.timeout(700)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", [("--lora",), ()])
def test_every_step_has_the_loss_that_trl_has(
    method: tuple[str, ...], case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCHMARK.parent)
    importlib.import_module("trainer_vs_trl").prepare(tmp_path, None, ["1.3M"])
    options = (*method, "--case", case)
    ours, theirs = (train(side, tmp_path, options) for side in ("tunedeck", "trl"))
    assert ours["start"] == theirs["start"]
    assert ours["tokens"] == theirs["tokens"]
    assert len(ours["losses"]) == STEPS
    assert ours["losses"] == pytest.approx(theirs["losses"], abs=1e-5)
    assert ours["losses"][-1] < ours["losses"][0]
