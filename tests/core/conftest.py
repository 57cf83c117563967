"""What the tests of runs share: a home of their own, and plans that run small real scripts."""

from __future__ import annotations

import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core import locations
from tunedeck.core.plan import Launch, Plan, SecretRef, digest_of, new_run_id
from tunedeck.core.process import processes_of, signal_all
from tunedeck.core.runs.registry import Registry

PlanMaker = Callable[..., Plan]


@pytest.fixture
def registry(home: Path) -> Registry:
    """The registry of the empty home."""
    return Registry()


@pytest.fixture
def make_plan(home: Path, tmp_path: Path) -> Iterator[PlanMaker]:
    """Make plans of small Python scripts; whatever they start is gone after the test."""
    made: list[str] = []

    def make(script: str = "", *, name: str = "test", **changes: Any) -> Plan:
        run_id = new_run_id()
        made.append(run_id)
        path = tmp_path / f"{run_id}.py"
        path.write_text(textwrap.dedent(script))
        profile = {
            "executor": "local",
            "run_command": shlex.join([sys.executable, str(path)]),
            **changes.pop("profile_values", {}),
        }
        facts: dict[str, Any] = {
            "run_id": run_id,
            "name": name,
            "step": "peft/automodel",
            "step_source": "shipped",
            "config_name": "tiny",
            "config": {"step_scheduler": {"max_steps": 4}},
            "profile": "local",
            "executor": "local",
            "profile_values": profile,
            "launch": Launch("command", "tunedeck.trainer"),
            "env": {},
            "secrets": tuple[SecretRef, ...](),
            "inputs": (),
            "run_dir": locations.run_dir(run_id),
            "digest": digest_of(script),
            "created_at": time.time(),
        }
        return Plan(**{**facts, **changes})

    yield make
    for run_id in made:
        while left := processes_of(run_id, None):
            signal_all(left, 9)
            time.sleep(0.05)
