"""What the tests of env files share: a folder to write them in, and a shell without credentials."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tunedeck.core.env.check import check_files
from tunedeck.core.env.find import FoundFiles
from tunedeck.core.env.load import EnvFiles, load_env_files
from tunedeck.core.findings import Finding
from tunedeck.core.secrets import is_secret_name

Load = Callable[..., EnvFiles]
Check = Callable[..., list[Finding]]


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret of the person who runs the tests, and a user name."""
    for name in list(os.environ):
        if is_secret_name(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("USER", "ada")


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that says nothing of any place to run at."""
    prefixes = ("SLURM_", "LEPTON_", "NEMOTRON_", "DGXCLOUD_", "HF_", "WANDB_", "TUNEDECK_ENV")
    for name in list(os.environ):
        if name.startswith(prefixes):
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write an env file and give its path."""

    def write(text: str, name: str = "env.toml") -> Path:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


@pytest.fixture
def load(write: Callable[..., Path]) -> Load:
    """Load an env file from text."""
    return lambda text: load_env_files(FoundFiles((write(text),), ""))


@pytest.fixture
def check(write: Callable[..., Path]) -> Check:
    """Check an env file from text."""
    return lambda text: check_files(FoundFiles((write(text),), ""))
