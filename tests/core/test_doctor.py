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


def examined(capsys: Capture, *args: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and what was found."""
    code = run(["doctor", *args, "--json"])
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["findings"]
    return code, found


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
    errors = [finding for finding in found if finding["severity"] == "error"]
    assert code == ExitCode.USAGE
    assert len(errors) == 3
    assert all("TUNEDECK_HOME" in finding["fix"]["words"] for finding in errors)


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
