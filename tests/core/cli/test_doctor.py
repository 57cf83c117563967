from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunedeck.core.cli.main import run

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
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for Tunedeck, in a shell without tokens."""
    for name in ("HF_TOKEN", "WANDB_API_KEY", "TUNEDECK_ENV_FILE", "NEMOTRON_ENV_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env.toml").write_text(PROFILES)
    return tmp_path / "home"


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    found = json.loads(capsys.readouterr().out)["findings"]
    return [finding["message"] for finding in found if finding["severity"] == "error"]


def test_nothing_wrong_is_0_and_writes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", "local", "--json"]) == 0
    assert errors(capsys) == []
    assert not home.exists()


def test_a_folder_that_cannot_be_one_is_2(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home.write_text("a file stands here")
    assert run(["doctor", "--json"]) == 2
    assert [words.partition(" cannot")[0] for words in errors(capsys)] == [
        f"The {name} folder {home / name.replace('uration', '')}"
        for name in ("configuration", "state", "cache")
    ]


@pytest.mark.parametrize(("profile", "code"), [("away", 3), ("wrong", 2)])
def test_what_is_wrong_with_a_profile_is_the_exit_code(
    profile: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["doctor", profile, "--json"]) == code
    assert errors(capsys)


def test_a_profile_that_is_not_there_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "awya"]) == 2
    assert "Did you mean 'away'?" in capsys.readouterr().err
