from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tunedeck.core.cli.main import run

FILE = """\
[base]
executor = "slurm"
tunnel = "ssh"
host = "login.site.edu"
remote_job_dir = "/lustre/ada/runs"
container_image = "nvcr.io/nvidia/nemo:25.11"
mounts = ["/lustre:/lustre"]
gpus_per_node = 8
env_vars = { HF_TOKEN = "${oc.env:HF_TOKEN,''}", OUT_DIR = "/lustre/ada" }

[big]
extends = "base"
nodes = 4
env_vars = { OUT_DIR = "/lustre/ada/big" }
"""
CANARY = {"HF_TOKEN": "hf_canarycanarycanarycanary"}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The folder that commands run in."""
    return tmp_path / "work"


@pytest.fixture
def env_file(tunedeck: Command, work: Path) -> Path:
    """An env file without a mistake."""
    path = work / "env.toml"
    path.write_text(FILE)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, for commands that run in this process."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def document(done: Any) -> Any:
    return json.loads(done.stdout)


def test_a_clean_file_checks_with_nothing_on_stdout(tunedeck: Command, env_file: Path) -> None:
    done = tunedeck("env", "check", env=CANARY)
    assert (done.returncode, done.stdout) == (0, "")
    assert "env.toml" in done.stderr


def test_findings_are_told_like_a_compiler_tells_them(tunedeck: Command, env_file: Path) -> None:
    env_file.write_text(FILE.replace("nodes = 4", "ndoes = 4"))
    done = tunedeck("env", "check", env=CANARY)
    assert done.returncode == 2
    lines = done.stdout.splitlines()
    assert lines[0].startswith("env.toml:13:1: error: There is no key 'ndoes'")
    assert lines[1:3] == ["    ndoes = 4", "    ^"]
    assert lines[3] == "  fix: Did you mean 'nodes'?"
    assert "1 error" in done.stderr
    assert "--fix" in done.stderr


def test_findings_as_json_have_the_shape_of_the_contract(tunedeck: Command, env_file: Path) -> None:
    env_file.write_text(FILE.replace("nodes = 4", "ndoes = 4"))
    done = tunedeck("env", "check", "env.toml", "--json", env=CANARY)
    assert done.returncode == 2
    (finding,) = document(done)["findings"]
    assert finding == {
        "severity": "error",
        "file": "env.toml",
        "line": 13,
        "column": 1,
        "profile": "big",
        "key": "ndoes",
        "message": "There is no key 'ndoes' in a slurm profile.",
        "fix": {
            "words": "Did you mean 'nodes'?",
            "edit": {"op": "rename", "key": "ndoes", "value": "nodes"},
        },
    }


def test_warnings_pass_and_fail_when_it_is_strict(tunedeck: Command, env_file: Path) -> None:
    unset = {"HF_TOKEN": ""}
    assert tunedeck("env", "check", env=unset).returncode == 0
    strict = tunedeck("env", "check", "--strict", "--json", env=unset)
    assert strict.returncode == 2
    assert [finding["severity"] for finding in document(strict)["findings"]] == ["warning"]


def test_fix_shows_the_diff_makes_the_mends_and_says_what_is_left(
    tunedeck: Command, env_file: Path
) -> None:
    env_file.write_text(FILE.replace("nodes = 4", 'ndoes = 4  # four\nqos = "<qos>"'))
    done = tunedeck("env", "check", "--fix", env=CANARY)
    assert done.returncode == 2
    assert "-ndoes = 4  # four" in done.stdout
    assert "+nodes = 4  # four" in done.stdout
    assert "placeholder" in done.stdout
    assert "no key" not in done.stdout
    assert "nodes = 4  # four" in env_file.read_text()

    again = tunedeck("env", "check", "--fix", "--json", env=CANARY)
    assert document(again)["fixed"] == []


def test_secrets_in_clear_are_errors_and_never_printed(tunedeck: Command, env_file: Path) -> None:
    env_file.write_text(
        FILE.replace("nodes = 4", 'ndoes = 4\nsecrets = "PLAIN"').replace(
            'OUT_DIR = "/lustre/ada/big"', 'API_KEY = "canary-1", PLAIN = "canary-2"'
        )
    )
    for arguments in (["check"], ["check", "--json"], ["show", "base"], ["check", "--fix"]):
        done = tunedeck("env", *arguments, env=CANARY)
        assert "canary" not in done.stdout + done.stderr
    assert tunedeck("env", "check", env=CANARY).returncode == 2


def test_list_names_profiles_files_and_reasons(
    tunedeck: Command, env_file: Path, work: Path
) -> None:
    (work / "env.b.toml").write_text('[mine]\nexecutor = "local"\n')
    (work / "other.toml").write_text('[c]\nexecutor = "local"\n')
    done = tunedeck("env", "list", "--json")
    listed = document(done)
    assert [row["name"] for row in listed["profiles"]] == ["base", "big", "mine", "local"]
    big = listed["profiles"][1]
    assert (big["executor"], big["extends"], big["nodes"], big["line"]) == (
        "slurm",
        ["base"],
        4,
        11,
    )
    assert [Path(row["file"]).name for row in listed["files"]] == ["env.toml", "env.b.toml"]
    assert "working directory" in listed["reason"]

    named = tunedeck("env", "list", env={"NEMOTRON_ENV_FILE": "other.toml"})
    assert "other.toml (named by NEMOTRON_ENV_FILE)" in named.stderr
    assert "Passed over: env.toml" in named.stderr
    assert "base" not in named.stdout


def test_without_any_file_there_is_still_the_local_profile(tunedeck: Command) -> None:
    done = tunedeck("env", "list")
    assert done.returncode == 0
    assert "local" in done.stdout
    assert "tunedeck env init" in done.stderr
    shown = document(tunedeck("env", "show", "local", "--json"))
    assert shown["values"]["nodes"]["value"] == 1
    checked = tunedeck("env", "check")
    assert checked.returncode == 2
    assert "tunedeck env init" in checked.stderr


def test_show_tells_each_values_layer_file_line_and_what_it_overrode(
    tunedeck: Command, env_file: Path
) -> None:
    shown = document(tunedeck("env", "show", "big", "--json", env=CANARY))
    assert (shown["profile"], shown["executor"]) == ("big", "slurm")
    assert shown["values"]["nodes"] == {
        "value": 4,
        "layer": "profile big",
        "file": str(env_file),
        "line": 13,
        "overrode": [],
    }
    (overrode,) = shown["values"]["env_vars.OUT_DIR"]["overrode"]
    assert (overrode["value"], overrode["layer"], overrode["line"]) == (
        "/lustre/ada",
        "profile base",
        9,
    )
    assert shown["values"]["env_vars.HF_TOKEN"]["value"] == "********"
    text = tunedeck("env", "show", "big", env=CANARY)
    assert "profile big, env.toml:13" in text.stdout
    assert "canary" not in text.stdout + json.dumps(shown)


def test_diff_names_the_values_that_differ_and_no_others(tunedeck: Command, env_file: Path) -> None:
    changes = document(tunedeck("env", "diff", "base", "big", "--json"))["changes"]
    assert [change["key"] for change in changes] == ["env_vars.OUT_DIR", "nodes"]
    assert changes[1]["a"] is None
    assert changes[1]["b"]["value"] == 4
    assert "nodes" in tunedeck("env", "diff", "base", "big").stdout
    assert tunedeck("env", "diff", "big", "big").stdout == ""


def test_a_profile_that_there_is_not_is_a_mistake_with_the_nearest(
    tunedeck: Command, env_file: Path
) -> None:
    for arguments in (["show", "bgi"], ["diff", "base", "bgi"]):
        done = tunedeck("env", *arguments)
        assert done.returncode == 2
        assert "Did you mean 'big'?" in done.stderr


def test_env_file_comes_before_what_is_found(tunedeck: Command, env_file: Path) -> None:
    other = env_file.with_name("other.toml")
    other.write_text('[big]\nexecutor = "local"\n')
    shown = document(tunedeck("env", "show", "big", "--json", "--env-file", other))
    assert shown["executor"] == "local"


DEEP = "[p0]\n" + "".join(f'[p{n}]\nextends = "p{n - 1}"\n' for n in range(1, 1000))
BAD: dict[str, str | bytes] = {
    "no TOML": "[a\n",
    "another encoding": '[a]\nx = "é"\n'.encode("latin-1"),
    "ten megabytes": b"# " + b"x" * 10_000_000,
    "a table twice": "[a]\nx = 1\n[a]\ny = 1\n",
    "a circle of keys": '[a]\nexecutor = "slurm"\nhost = "${user}"\nuser = "${host}"\n',
    "a missing variable": '[a]\nexecutor = "slurm"\nhost = "${oc.env:NO_SUCH_VARIABLE}"\n',
    "a parent that is not there": '[a]\nextends = "gone"\n',
    "a circle of parents": '[a]\nextends = "b"\n[b]\nextends = "a"\n',
    "a value outside any profile": "nodes = 1\n",
    "nesting without end": "a = " + "[" * 5000,
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_bad_files_are_told_with_place_and_remedy_and_left_alone(
    here: Path, capsys: pytest.CaptureFixture[str], content: str | bytes
) -> None:
    path = here / "env.toml"
    raw = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(raw)
    for arguments in (["check"], ["check", "--fix"], ["show", "a"]):
        assert run(["env", *arguments]) == 2
        said = "".join(capsys.readouterr())
        assert "env.toml" in said
        assert "fix:" in said
        assert path.read_bytes() == raw
    assert run(["env", "check", "--json"]) == 2
    (finding, *_) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["severity"] == "error"
    assert finding["fix"]["words"]


@pytest.mark.parametrize("kind", ["directory", "loop", "unreadable", "absent"])
def test_what_is_no_readable_file_is_told_with_a_remedy(
    here: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = here / "env.toml"
    if kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "unreadable":
        path.write_text(FILE)
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read everything")
    assert run(["env", "check", "env.toml"]) == 2
    said = capsys.readouterr().out
    assert "env.toml" in said
    assert "fix:" in said


def test_a_chain_of_a_thousand_profiles_is_shown(tunedeck: Command, work: Path) -> None:
    (work / "env.toml").write_text(DEEP.replace("[p0]\n", '[p0]\nexecutor = "local"\nnodes = 1\n'))
    shown = document(tunedeck("env", "show", "p999", "--json"))
    assert shown["values"]["nodes"]["layer"] == "profile p0"
    assert tunedeck("env", "check").returncode == 0


def test_control_sequences_of_a_file_do_not_reach_the_terminal(
    tunedeck: Command, work: Path
) -> None:
    (work / "env.toml").write_text(
        '[a]\nexecutor = "local"\n"\\u001b[31mred" = "\\u001b]0;x\\u0007"\n'
    )
    for arguments in (["check"], ["show", "a"], ["list"]):
        done = tunedeck("env", *arguments)
        assert "\x1b" not in done.stdout + done.stderr
