"""Secret values leave the environment for the job alone: planted, then looked for everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Command

CANARIES = {
    "HF_TOKEN": "hf_canary7Qx1aaaaaaaaaaaaaaaaaaaaaaaa",
    "WANDB_API_KEY": "canary7Qx2bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    "MY_SERVICE_PASSWORD": "canary7Qx3",
}
ENV_FILE = """
[probe]
executor = "local"
secrets = ["HF_TOKEN", "WANDB_API_KEY"]
run_command = "until [ -e seen ]; do sleep 0.1; done; : {config}; \
test -n \\"$HF_TOKEN$MY_SERVICE_PASSWORD\\" && echo step=1"
env_vars = { MY_SERVICE_PASSWORD = "${oc.env:MY_SERVICE_PASSWORD}", HF_HOME = "/tmp/hf" }
"""
RUN = ("steps", "run", "peft/automodel", "-c", "tiny")


def _leaks(text: str) -> list[str]:
    return [name for name, value in CANARIES.items() if value in text]


def _processes(word: str) -> list[str]:
    """The command lines of this machine in which a word is."""
    ps = ["ps", "axww", "-o", "args"]
    listed = subprocess.run(ps, capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if word in line]


def test_no_file_log_preview_record_process_list_or_error_holds_a_secret(
    tunedeck: Command, home: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    (work / "env.toml").write_text(ENV_FILE)
    commands: list[tuple[str, ...]] = [
        (*RUN, "-r", "probe", "-d"),
        (*RUN, "-r", "probe", "-d", "--json", "--explain"),
        ("env", "show", "probe"),
        ("env", "show", "probe", "--json"),
        ("env", "check", "--json"),
        ("env", "diff", "probe", "local"),
        (*RUN, "-b", "probe", "--save", "kept", "--json"),
        ("runs", "list", "--json"),
        ("runs", "show", "peft-automodel-tiny", "--json"),
        ("replays", "show", "kept", "--json"),
        ("doctor", "probe", "--json"),
        (*RUN, "-r", "probe", "wandb.project=${oc.env:WANDB_API_KEY}"),
        (*RUN, "-r", "probe", f"run.env.env_vars.HF_TOKEN={CANARIES['HF_TOKEN']}"),
        (*RUN, "-r", "probe", f"model.token={CANARIES['HF_TOKEN']}"),
    ]
    for command in commands:
        done = tunedeck(*command, env=CANARIES)
        assert _leaks(done.stdout + done.stderr) == [], command
        if "-b" in command:
            own = _processes(str(home))
            while not any(": /" in line for line in own):  # until the step's own shell is there
                time.sleep(0.1)
                own = _processes(str(home))
            assert _leaks("\n".join(own)) == []
            (work / "seen").touch()
    assert tunedeck("runs", "wait", "peft-automodel-tiny", env=CANARIES).returncode == 0

    looked_at = 0
    for path in [*home.rglob("*"), *work.rglob("*")]:
        if path.is_file():
            looked_at += 1
            assert _leaks(path.read_bytes().decode("latin-1")) == [], path
    assert looked_at > 5


def test_a_secret_in_clear_in_an_env_file_is_refused_without_showing_it(
    tunedeck: Command, tmp_path: Path
) -> None:
    (tmp_path / "work" / "env.toml").write_text(
        f'[probe]\nexecutor = "local"\nenv_vars = {{ HF_TOKEN = "{CANARIES["HF_TOKEN"]}" }}\n'
    )
    for command in (("env", "check"), ("env", "check", "--json"), (*RUN, "-r", "probe")):
        done = tunedeck(*command)
        assert done.returncode == 2
        assert _leaks(done.stdout + done.stderr) == []
    (finding,) = [
        f
        for f in json.loads(tunedeck("env", "check", "--json").stdout)["findings"]
        if f["severity"] == "error"
    ]
    assert finding["key"] == "env_vars.HF_TOKEN"


def test_a_missing_wandb_key_is_found_before_anything_is_registered(tunedeck: Command) -> None:
    done = tunedeck(*RUN, "wandb.mode=online", "wandb.project=p")
    assert done.returncode in (2, 4)
    assert "WANDB_API_KEY" in done.stderr
    assert json.loads(tunedeck("runs", "list", "--json").stdout) == []


@pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX")
def test_the_environment_of_the_launcher_reaches_a_local_run(tunedeck: Command) -> None:
    done = tunedeck(
        *RUN, "run.env.run_command=test \"$MY_OWN\" = 1", env={"MY_OWN": "1"}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
