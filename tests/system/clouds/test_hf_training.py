"""The shipped trainer on Hugging Face Jobs, from a generated env file to an adapter at home."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.system.clouds.hf import FakeHub
from tests.system.clouds.training import LAUNCH, measured
from tests.system.places import hub_on_loopback
from tunedeck.core.runs.registry import Registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LIMIT_S = 120.0
MARK = "5b1d90e3aa"
CANARY = f"""quoted "x" 'y' $HOME `id` \\n %s é
{MARK}"""
"""A secret that no quoting of a shell, of JSON or of YAML leaves as it is; a mark is in it."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("HF_NAMESPACE", "ada")
    monkeypatch.setenv("HF_FLAVOR", "t4-small")
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with hub_on_loopback(tmp_path, monkeypatch) as running:
        yield running


def test_a_run_trains_there_as_it_does_here_and_its_adapter_comes_home(
    hub: FakeHub,
    trained_here: str,
    tunedeck: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    made = tunedeck("env", "init", "-c", "hf_jobs")
    assert made.returncode == 0, made.stderr
    checked = tunedeck("env", "check")
    assert checked.returncode == 0, checked.stdout

    preview = tunedeck(*LAUNCH, "-r", "hf_peft_automodel", "--dry-run", "--online", "--json")
    assert preview.returncode == 0, preview.stderr
    assert json.loads(preview.stdout)["price"]["flavor"] == "t4-small"
    assert not hub.jobs

    there = tunedeck(*LAUNCH, "-r", "hf_peft_automodel", timeout=400)
    assert there.returncode == 0, there.stderr
    assert measured(there.stdout) == measured(trained_here)
    assert "tunedeck: exit=0" in there.stdout.splitlines()

    record = Registry().list()[0]
    assert (record.backend, str(record.state), record.exit_code) == ("hf_jobs", "succeeded", 0)
    fetched = tunedeck("runs", "fetch", record.run_id)
    assert fetched.returncode == 0, fetched.stderr
    adapter = "checkpoints/latest/adapter_model.safetensors"
    kept = hub.bucket("ada/tunedeck") / record.run_id / "checkpoints"
    there_file = kept / (kept / "latest").read_text() / "adapter_model.safetensors"
    assert (record.run_dir / adapter).read_bytes() == there_file.read_bytes()

    further = tunedeck("runs", "resume", record.run_id, "step_scheduler.max_steps=8", timeout=400)
    assert further.returncode == 0, further.stderr
    steps = [line.split()[0] for line in measured(further.stdout)]
    assert "step=8" in steps
    assert "step=6" not in [s for s in steps if s == "step=6"][1:]
    assert "step=1" not in steps

    (job,) = {job.spec["secrets"]["WANDB_API_KEY"] for job in hub.jobs.values()}
    assert job == CANARY
    said = (preview, there, fetched, further)
    assert not any(MARK in done.stdout + done.stderr for done in said)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or MARK.encode() not in path.read_bytes(), path


def test_a_run_that_fails_there_ends_with_the_exit_codes_of_a_run_here(
    hub: FakeHub, tunedeck: Callable[..., CompletedProcess[str]]
) -> None:
    tunedeck("env", "init", "-c", "hf_jobs")
    launch = ("steps", "run", "peft/automodel", "-c", "tiny", "run.env.run_command=exit 7")
    done = tunedeck(*launch, "-r", "hf_peft_automodel", "--json")
    assert done.returncode == 100, done.stderr
    assert json.loads(done.stdout)["exit_code"] == 7

    steer = {"SFT_ARGS": "step_scheduler.max_steps=1 sampling.prompts=[]", "RUN": "by-hand"}
    steered = tunedeck(*launch[:-1], "-r", "hf_peft_automodel", env=steer)
    assert steered.returncode == 0, steered.stderr
    assert [line.split()[0] for line in measured(steered.stdout)][-1] == "step=1"
    newest = list(hub.jobs.values())[-1]
    assert newest.spec["environment"]["TUNEDECK_RUN_NAME"] == "by-hand"

    queue = tunedeck("queue", "hf_peft_automodel")
    assert queue.returncode == 0, queue.stderr
    assert "t4-small" in queue.stdout
    looked = tunedeck("doctor", "hf_peft_automodel")
    assert "hf_jobs answers" in looked.stdout


def test_ctrl_c_in_a_submission_leaves_at_once_and_says_what_may_have_become_of_it(
    hub: FakeHub, tmp_path: Path, tunedeck: Callable[..., CompletedProcess[str]]
) -> None:
    tunedeck("env", "init", "-c", "hf_jobs")
    hub.fault("POST", "/api/jobs/ada$", delay_s=3 * LIMIT_S)
    launch = ("steps", "run", "peft/automodel", "-c", "tiny", "-b", "hf_peft_automodel")
    with subprocess.Popen(
        [sys.executable, "-m", "tunedeck", *launch, "run.env.run_command=exit 0"],
        cwd=tmp_path / "work", stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        deadline = time.monotonic() + LIMIT_S
        while not hub.sent("POST", "/api/jobs/ada$"):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=LIMIT_S)
    assert running.returncode == 128 + signal.SIGINT
    assert "was being submitted" in said
    assert "tunedeck runs cancel" in said
    (record,) = Registry().list()
    assert record.word == "given up"
