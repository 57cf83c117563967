"""What every test stands on: a home of its own, and the command as a user runs it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# What is right stays right on a machine that is slow.
settings.register_profile(
    "tunedeck", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("tunedeck")

# A shell that starts the tests in the background has them ignore ctrl-C, and so all they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Command = Callable[..., "subprocess.CompletedProcess[str]"]

_PRIVATE = ("TUNEDECK_", "NEMOTRON_", "HF_", "WANDB_", "SLURM_", "LEPTON_")


def pytest_collection_finish() -> None:
    """Spare each collection of garbage the walk over torch and all that was imported for good."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh TUNEDECK_HOME, and no setting of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith(_PRIVATE):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("NO_PROXY", "no_proxy"):  # services of tests are on loopback
        monkeypatch.setenv(name, ",".join(["127.0.0.1", "localhost", os.environ.get(name, "")]))
    return tmp_path / "home"


@pytest.fixture
def tunedeck(tmp_path: Path) -> Command:
    """Run the command line in a subprocess, in a folder of its own."""
    work = tmp_path / "work"
    work.mkdir()

    def run(
        *args: str | Path,
        env: dict[str, str] | None = None,
        cwd: Path = work,
        stdin: str | None = None,
        timeout: float = 100,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "tunedeck", *map(str, args)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run
