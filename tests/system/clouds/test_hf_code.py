"""The seed's variables on Hugging Face Jobs: code that is cloned in the job, words, processes."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.clouds.hf import FakeHub
from tests.system.places import HFPlace, hub_on_loopback, plan_for, quick
from tunedeck.core.backends.hf.backend import HFJobsBackend
from tunedeck.core.plan import Launch, Plan
from tunedeck.core.states import RunState

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]

LIMIT_S = 120.0

WHO = """\
import os, sys
print("code of", {version!r})
print("words", sys.argv[1:])
print("named", os.environ.get("TUNEDECK_RUN_NAME"), os.environ.get("RUN"))
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    quick(monkeypatch)
    with hub_on_loopback(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """A git repository with a package in two versions, the first of them tagged; its address."""
    folder = tmp_path / "repository"
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    for version in ("one", "two"):
        package = folder / "src" / "stage"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "train.py").write_text(WHO.format(version=version))
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", version], check=True)
    subprocess.run([*git, "tag", "v1", "HEAD~1"], check=True)
    return f"file://{folder}"


async def ran(hub: FakeHub, env: dict[str, str], **values: Any) -> tuple[list[str], RunState]:
    """A job of a stage of the repository's own, with an environment; its log, and how it ended."""
    facts = {**HFPlace(hub).values, **values}
    launch = Launch("python", "stage.train", ("sft",))
    plan: Plan = plan_for({**facts}, "", env=env, launch=launch, step="sft/automodel")
    backend = HFJobsBackend(dict(plan.profile_values))
    handle = await backend.submit(backend.render(plan))
    assert await asyncio.to_thread(hub.jobs[handle.job_id].run.wait, LIMIT_S)
    async with asyncio.timeout(LIMIT_S):
        lines = [e.line.decode() async for e in backend.logs(handle, None, follow=True)]
    status = await backend.status(handle)
    return lines, status.state


@pytest.mark.parametrize(("ref", "version"), [("v1", "one"), ("main", "two"), ("", "two")])
async def test_the_code_is_the_repository_s_at_the_ref_that_is_asked_for(
    hub: FakeHub, repository: str, ref: str, version: str
) -> None:
    lines, state = await ran(hub, {"REPO_URL": repository, "GIT_REF": ref})
    assert f"code of {version}" in lines, lines
    assert any(line.startswith("tunedeck: code is ") for line in lines)
    assert state is RunState.SUCCEEDED


async def test_other_code_than_was_asked_for_never_runs(hub: FakeHub, repository: str) -> None:
    lines, state = await ran(hub, {"REPO_URL": repository, "GIT_REF": "nosuch"})
    assert "tunedeck: error: GIT_REF nosuch is not in the repository" in lines
    assert lines[-1] == "tunedeck: exit=2"
    assert not [line for line in lines if line.startswith("code of")]
    assert state is RunState.FAILED

    lines, state = await ran(hub, {"REPO_URL": f"{repository}-gone"})
    assert "tunedeck: error: REPO_URL could not be cloned" in lines
    assert state is RunState.FAILED


async def test_the_stage_s_words_arrive_as_they_were_quoted(hub: FakeHub, repository: str) -> None:
    words = """optimizer.lr=1e-4 'name=two  words' "quote=it's" 'dollar=$HOME `id`' glob=* a\\;b"""
    env = {"REPO_URL": repository, "SFT_ARGS": words, "RL_ARGS": "not=mine", "RUN": "by hand"}
    lines, _ = await ran(hub, env)
    (said,) = [line for line in lines if line.startswith("words ")]
    expected = ["optimizer.lr=1e-4", "name=two  words", "quote=it's", "dollar=$HOME `id`",
                "glob=*", "a;b"]  # fmt: skip
    assert said.endswith(str(expected)[1:])
    assert "named by hand by hand" in lines
