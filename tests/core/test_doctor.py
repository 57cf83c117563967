from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.cli.main import run
from tunedeck.core.errors import AuthenticationError, ExitCode, ReachError

Capture = pytest.CaptureFixture[str]
CANARY = "hf_" + "Canary4711" * 4
PROFILES = """\
[away]
executor = "slurm"
host = "127.0.0.1"
port = 1  # where nothing listens
user = "ada"
remote_job_dir = "/lustre/ada"
container_runtime = "none"

[wrong]
executor = "slurm"
nodes = 0
"""


@pytest.fixture(autouse=True)
def profiles(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with profiles, and a shell without tokens."""
    for name in ("HF_TOKEN", "WANDB_API_KEY", "TUNEDECK_ENV_FILE", "NEMOTRON_ENV_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env.toml").write_text(PROFILES)


def examined(capsys: Capture, *args: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and what was found."""
    code = run(["doctor", *args, "--json"])
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["findings"]
    return code, found


def errors(found: list[dict[str, Any]]) -> list[str]:
    return [finding["message"] for finding in found if finding["severity"] == "error"]


def test_this_machine_is_told_and_a_token_only_named(
    home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    code, found = examined(capsys)
    said = "\n".join(finding["message"] for finding in found)
    assert code == ExitCode.OK
    assert "Hugging Face token: present" in said
    assert str(home) in said
    assert CANARY not in json.dumps(found)
    assert not home.exists(), "looking makes nothing"


def test_this_machine_can_be_reached_and_looking_makes_nothing(home: Path, capsys: Capture) -> None:
    code, found = examined(capsys, "local")
    assert (code, errors(found)) == (ExitCode.OK, [])
    assert not home.exists()


def test_what_is_not_installed_is_a_warning_with_the_command(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedeck.core.doctor._TRAIN", ("torch", "no-such-package"))
    code, found = examined(capsys)
    (warning,) = [finding for finding in found if finding["severity"] == "warning"]
    assert code == ExitCode.OK
    assert "missing: no-such-package" in warning["message"]
    assert "pip install" in warning["fix"]["words"]


def test_a_folder_that_cannot_be_written_is_an_error(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere: what the kernel says to others is said here.
    monkeypatch.setattr(os, "access", lambda *_: False)
    code, found = examined(capsys)
    wrong = [finding for finding in found if finding["severity"] == "error"]
    assert code == ExitCode.USAGE
    assert len(wrong) == 3
    assert all("TUNEDECK_HOME" in finding["fix"]["words"] for finding in wrong)


def test_a_file_where_a_folder_is_to_be_is_an_error(home: Path, capsys: Capture) -> None:
    home.write_text("a file stands here")
    code, found = examined(capsys)
    assert code == ExitCode.USAGE
    assert [words.partition(" cannot")[0] for words in errors(found)] == [
        f"The {name} folder {home / name.replace('uration', '')}"
        for name in ("configuration", "state", "cache")
    ]


@pytest.mark.parametrize(
    ("profile", "code"), [("away", ExitCode.CONNECTION), ("wrong", ExitCode.USAGE)]
)
def test_what_is_wrong_with_a_profile_is_the_exit_code(
    profile: str, code: ExitCode, capsys: Capture
) -> None:
    found_code, found = examined(capsys, profile)
    assert found_code == code
    assert errors(found)


def test_a_profile_that_is_not_there_is_refused_with_the_nearest(capsys: Capture) -> None:
    assert run(["doctor", "awya"]) == ExitCode.USAGE
    assert "Did you mean 'away'?" in capsys.readouterr().err


async def answers() -> None:
    """A service that is there."""


async def is_away() -> None:
    raise ReachError("No route to host.")


async def refuses() -> None:
    raise AuthenticationError("The token is no longer valid.")


async def hangs() -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("service", "code", "says"),
    [
        (answers, ExitCode.OK, "answers"),
        (is_away, ExitCode.CONNECTION, "No route"),
        (refuses, ExitCode.AUTHENTICATION, "no longer valid"),
        (hangs, ExitCode.TIMEOUT, "did not answer"),
    ],
)
def test_a_profiles_place_is_asked_and_its_silence_has_a_code(
    service: Callable[[], Awaitable[None]],
    code: ExitCode,
    says: str,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Backend:
        async def inventory(self, profile_values: dict[str, Any]) -> dict[str, Any]:
            await service()
            return {}

    monkeypatch.setattr("tunedeck.core.backends.base.load_backend", lambda *_: Backend())
    if service is hangs:
        monkeypatch.setattr("tunedeck.core.doctor._REACH_LIMIT", 0.05)
    found_code, found = examined(capsys, "local")
    assert found_code == code
    assert says in found[-1]["message"]
