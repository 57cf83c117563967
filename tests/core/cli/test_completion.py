"""What a shell offers, asked as the shell asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.conftest import PlanMaker
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry

PROFILE = '[slurm_big]\nexecutor = "slurm"\n'


@pytest.fixture
def offered(tmp_path: Path) -> object:
    (tmp_path / "env.toml").write_text(PROFILE)

    def ask(typed: str) -> list[str]:
        words = f"tunedeck {typed}"
        done = subprocess.run(
            [sys.executable, "-m", "tunedeck"],
            env={
                **os.environ,
                "TUNEDECK_HOME": str(tmp_path / "home"),
                "_TUNEDECK_COMPLETE": "zsh_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split(" ")) - 1),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not done.stderr, done.stderr
        return done.stdout.splitlines()[1::3]  # of each: its kind, the word, its help

    return ask


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("st", {"steps"}),
        ("steps show pe", {"peft/automodel"}),
        ("steps run peft/automodel -c ", {"default", "tiny"}),
        ("steps run peft/automodel -c tiny optimizer.l", {"optimizer.lr="}),
        ("steps run peft/automodel -c tiny -r slurm", {"slurm_big"}),
        ("steps run nowhere -c tiny optimizer.l", set()),
        ("doctor slurm", {"slurm_big"}),
        ("runs logs r", set()),
        ("completion z", {"zsh"}),
        ("env init -c s", {"slurm"}),
        ("steps run peft/automodel --name x optimizer.l", {"optimizer.lr="}),
    ],
)
def test_each_kind_of_word_is_offered(offered: object, typed: str, words: set[str]) -> None:
    assert callable(offered)
    assert set(offered(typed)) == words


def test_a_run_is_offered_by_its_id_and_by_its_name(
    offered: object, make_plan: PlanMaker, registry: Registry
) -> None:
    for _ in range(2):
        registry.add(RunRecord.of(make_plan(name="demo"), forced=False))
    newest, older = (record.run_id for record in registry.list())
    assert callable(offered)
    assert offered("runs logs de") == ["demo"]
    assert offered("chat r") == [newest, older]
    assert offered("runs resume demo optimizer.l") == ["optimizer.lr="]


def test_a_broken_env_file_offers_nothing_and_says_nothing(offered: object, tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_text("[broken")
    assert callable(offered)
    assert offered("doctor slurm") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunedeck", "completion"],
        env={**os.environ, "SHELL": f"/bin/{shell}"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "_TUNEDECK_COMPLETE" in done.stdout
    assert f"{shell}_complete" in done.stdout


def test_an_unknown_shell_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunedeck", "completion"],
        env={**os.environ, "SHELL": "/bin/tcsh"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "tcsh" in done.stderr
    assert "tunedeck completion bash" in done.stderr


def test_bash_gets_what_stands_behind_the_equals_sign(tmp_path: Path) -> None:
    """Bash puts an answer in the place of what stands behind the last `=`, and not of the word."""
    expected = {
        "optimizer.l": "nospace optimizer.lr=",
        "model.attn_implementation=s": "sdpa",
        "'model.attn_implementation=s": "model.attn_implementation=sdpa",
        "-c ./t": "default",
    }
    tunedeck = tmp_path / "tunedeck"
    tunedeck.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tunedeck "$@"\n')
    tunedeck.chmod(0o755)
    script = """
    eval "$(tunedeck completion bash)"
    compopt() { option=$2; }
    for typed in "$@"; do
        COMP_LINE="tunedeck steps run peft/automodel $typed" COMP_POINT=${#COMP_LINE}
        COMPREPLY=() option=
        _tunedeck_completion tunedeck
        echo $option "${COMPREPLY[@]}"
    done
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *expected],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "TUNEDECK_HOME": str(tmp_path / "home"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    assert dict(zip(expected, done.stdout.splitlines(), strict=True)) == expected
