"""The fake Hub is faithful: the service's own `hf` drives it, and sends what ours sends."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.clouds.hf import FakeHub
from tests.system.places import HFPlace, hub_on_loopback, plan_for, quick
from tunedeck.core.backends.base import Handle
from tunedeck.core.backends.hf.backend import HFJobsBackend
from tunedeck.core.plan import SecretRef
from tunedeck.core.states import RunState

pytestmark = pytest.mark.slow

HF = Path(sys.executable).parent / "hf"
LIMIT_S = 120.0


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    quick(monkeypatch)
    if not HF.exists():
        pytest.skip("huggingface_hub's command `hf` is not beside the interpreter")
    with hub_on_loopback(tmp_path, monkeypatch) as running:
        yield running


async def submit(
    hub: FakeHub, command: str, **values: Any
) -> tuple[HFJobsBackend, Handle, dict[str, Any]]:
    """Submit as we do; the body that the service was sent."""
    facts = {**HFPlace(hub).values, "timeout": "2h", **values}
    secrets = (SecretRef("MY_TOKEN", "MY_TOKEN"),)
    plan = plan_for(facts, command, secrets=secrets, env={"A": "b c", "EMPTY": ""})
    backend = HFJobsBackend(dict(plan.profile_values))
    handle = await backend.submit(backend.render(plan))
    return backend, handle, hub.sent("POST", "/api/jobs/ada$")[-1].json()


async def hf(*words: str) -> str:
    """Run `hf`; what it printed."""
    done = await asyncio.to_thread(
        lambda: subprocess.run(
            [str(HF), *words],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
            env={**os.environ, "NO_COLOR": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"},
        )
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_what_the_official_command_sends_ours_sends_field_by_field(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", """quoted "x" 'y' $HOME `id`""")
    attempts = {"attempts": 2} if "--attempts" in await hf("jobs", "run", "--help") else {}
    _, _, ours = await submit(hub, "true", labels={"team": "nlp"}, **attempts)
    (volume,) = ours["volumes"]
    words = ["jobs", "run", "--detach", "--namespace", "ada", "--flavor", ours["flavor"]]
    words += ["--timeout", "2h", "--secrets", "MY_TOKEN"]
    words += [f"--attempts={n}" for n in attempts.values()]
    words += [w for key, value in ours["environment"].items() for w in ("-e", f"{key}={value}")]
    words += [w for key, value in ours["labels"].items() for w in ("--label", f"{key}={value}")]
    words += ["-v", f"hf://buckets/{volume['source']}:{volume['mountPath']}:rw"]
    await hf(*words, ours["dockerImage"], *ours["command"])
    theirs = hub.sent("POST", "/api/jobs/ada$")[-1].json()
    assert theirs == ours


async def test_the_official_command_sees_our_jobs_as_we_do(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_TOKEN", "x")
    go = tmp_path / "go"
    backend, handle, _ = await submit(hub, f"echo said it; while [ ! -e {go} ]; do sleep 0.1; done")
    assert handle.job_id[:8] in await hf("jobs", "ps", "--namespace", "ada")
    inspected = await hf("jobs", "inspect", "--format", "json", "--namespace", "ada", handle.job_id)
    (told,) = json.loads(inspected)
    assert told["labels"]["tunedeck-run"] == handle.run_id
    go.touch()
    async with asyncio.timeout(LIMIT_S):
        ours = [e.line.decode() async for e in backend.logs(handle, None, follow=True)]
    theirs = await hf("jobs", "logs", "--namespace", "ada", handle.job_id)
    assert [line for line in theirs.splitlines() if line and "=====" not in line] == ours

    backend, handle, _ = await submit(hub, "sleep 600")
    await hf("jobs", "cancel", "--namespace", "ada", handle.job_id)
    assert (await backend.cancel(handle)).state is RunState.CANCELLED
