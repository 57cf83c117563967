from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from tunedeck.core.cli.main import cli, run
from tunedeck.core.data.look import look_at_data
from tunedeck.core.errors import UsageError

MANIFEST = """
[step]
id = "sft/theirs"
name = "Their step \x1b]0;owned\x07"
category = "sft"
description = "Takes \\u001b[31mwhat\\u001b[0m comes."
tags = ["theirs"]
[[consumes]]
type = "training_jsonl"
description = "Rows."
required = true
[[produces]]
type = "checkpoint_hf"
[[parameters]]
name = "peft"
description = "How."
default = "null"
choices = ["lora", "null"]
[[strategies]]
when = "In doubt"
then = "Ask."
skill = "a/page.md"
[[errors]]
name = "oom"
recovery = "Less."
[reference]
docs = "https://docs.example"
"""
SCRIPT = """\
# /// script
# [tool.runspec]
# image = "registry.example/x:1"
# [tool.runspec.run]
# launch = "torchrun"
# [tool.runspec.resources]
# nodes = 1
# gpus_per_node = 4
# ///
import no_such_package
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEDECK_STEPS", raising=False)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    folder = tmp_path / "steps" / "sft" / "theirs"
    (folder / "config").mkdir(parents=True)
    (folder / "step.toml").write_text(MANIFEST.replace("\x1b]0;owned\x07", ""))
    (folder / "step.py").write_text(SCRIPT)
    (folder / "config" / "default.yaml").write_text("a: 1\n")
    return tmp_path / "steps"


def listed(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, Any]]:
    assert run(["steps", "list", "--json", *args]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_the_list_has_the_contracts_shape(capsys: pytest.CaptureFixture[str]) -> None:
    steps = {step["id"]: step for step in listed(capsys)}
    assert set(steps["peft/automodel"]) == {
        *("id", "name", "category", "tags", "consumes", "produces", "configs", "source"),
    }
    assert steps["peft/automodel"]["source"] == "tunedeck"
    assert {"tiny", "default"} <= set(steps["peft/automodel"]["configs"])
    assert [a["type"] for a in steps["convert/merge_lora"]["produces"]] == ["checkpoint_hf"]
    assert set(steps["env/env_toml"]["configs"]) >= {"lepton"}


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        (["--category", "peft"], {"peft/automodel"}),
        (
            ["--consumes", "translated_jsonl"],
            {"peft/automodel", "sft/automodel", "data_prep/inspect"},
        ),
        (["--produces", "checkpoint_lora", "--tag", "lora"], {"peft/automodel"}),
    ],
)
def test_filters_are_joined(
    capsys: pytest.CaptureFixture[str], filters: list[str], ids: set[str]
) -> None:
    assert {step["id"] for step in listed(capsys, *filters)} == ids


def test_filters_that_leave_nothing_are_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    filters = ["--category", "env", "--produces", "checkpoint_lora"]
    assert listed(capsys, *filters) == []
    assert run(["steps", "list", *filters]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "No step" in output.err


@pytest.mark.parametrize("form", [[], ["--tree"]])
def test_every_step_is_in_the_text_too(
    capsys: pytest.CaptureFixture[str], form: list[str], theirs: Path
) -> None:
    assert run(["steps", "list", *form, "--catalog", str(theirs)]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output
    for name in ("peft/automodel", "sft/automodel", "convert/merge_lora", "sft/theirs"):
        assert name in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--category", "pft"], "'peft'"),
        (["list", "--consumes", "checkpoint_lra"], "'checkpoint_lora'"),
        (["list", "--tag", "lroa"], "'lora'"),
        (["list", "--catalog", "/no/such/folder"], "/no/such/folder"),
        (["list", "--categry", "peft"], "--category"),
        (["show", "merge_lra"], "'convert/merge_lora'"),
        (["show", "automodel"], "peft/automodel, sft/automodel"),
        (["show"], "STEP"),
        (["shw"], "show"),
        (["run", "peft/automodel", "-c", "tiny", "--online"], "--dry-run"),
    ],
)
def test_a_mistake_exits_2_with_a_suggestion_on_stderr(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run(["steps", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert "Traceback" not in output.err


def test_a_page_tells_what_is_needed_to_choose_and_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["steps", "show", "merge_lora"]) == 0
    page = capsys.readouterr().out
    for words in (
        *("checkpoint_lora", "lora_checkpoint", "The default: ", "base_mismatch"),
        "tunedeck steps run convert/merge_lora -c default lora_checkpoint=",
    ):
        assert words in page
    assert run(["steps", "show", "peft/automodel"]) == 0
    assert "tunedeck steps run peft/automodel -c tiny\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["convert/merge_lora"], "convert/merge_lora reads no dataset."),
        (["env/env_toml"], "env/env_toml reads no dataset."),
        (["data_prep/inspect", "--validation"], "data_prep/inspect reads no validation_dataset."),
    ],
)
def test_a_step_without_data_says_so_and_asks_for_nothing_else(
    capsys: pytest.CaptureFixture[str], asked: list[str], words: str
) -> None:
    assert run(["data", "look", *asked]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "???" not in said


def test_the_page_as_json_has_the_whole_manifest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["steps", "show", "peft/automodel", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert page["launch"]["module"] == "tunedeck.trainer"
    assert page["resources"] == {"nodes": 1, "gpus_per_node": 1}
    assert page["default_config"] == "default"
    assert Path(page["config_files"]["tiny"]).is_file()
    assert page["models"][0]["min_gpus"] == 1
    assert page["next"]["checkpoint_lora"] == ["convert/merge_lora"]
    assert {"parameters", "strategies", "errors", "reference", "description"} <= set(page)


def test_a_foreign_step_is_shown_with_its_own_launch_facts(
    capsys: pytest.CaptureFixture[str], theirs: Path
) -> None:
    assert run(["steps", "show", "theirs", "--json", "--catalog", str(theirs)]) == 0
    page = json.loads(capsys.readouterr().out)
    assert page["source"] == str(theirs)
    assert page["launch"]["kind"] == "torchrun"
    assert page["launch"]["script"] == str(theirs / "sft/theirs/step.py")
    assert page["resources"]["container_image"] == "registry.example/x:1"
    assert "no_such_package" in page["not_runnable_here"]
    assert run(["steps", "show", "theirs", "--catalog", str(theirs)]) == 0
    text = capsys.readouterr().out
    assert "cannot run: step.py imports" in text
    assert f"tunedeck steps run sft/theirs --catalog {theirs} -c default" in text


def test_what_a_foreign_step_makes_of_its_data_is_not_guessed(
    capsys: pytest.CaptureFixture[str], theirs: Path
) -> None:
    data = {"dataset": {"path_or_dataset_id": "rows.jsonl"}}
    (theirs / "sft/theirs/config/default.yaml").write_text(json.dumps(data))
    assert run(["data", "look", "theirs", "--catalog", str(theirs)]) == 2
    assert "has a config of its own" in capsys.readouterr().err
    with pytest.raises(UsageError, match="another trainer's"):
        look_at_data(data)


def test_a_foreign_config_may_hold_anything_where_ours_has_a_table(
    capsys: pytest.CaptureFixture[str], theirs: Path, home: Path
) -> None:
    names = "model dataset wandb checkpoint step_scheduler distributed tokenizer optimizer"
    values: dict[str, Any] = {name: [name] for name in names.split()} | {"model": "a/name"}
    (theirs / "sft/theirs/config/default.yaml").write_text(json.dumps(values))
    command = ["steps", "run", "theirs", "--catalog", str(theirs), "--name", "odd"]
    assert run([*command, "run.env.run_command=cat {config}"]) == 0
    for args in (["show", "odd"], ["show", "odd", "--json"], ["metrics", "odd"], ["list"]):
        assert run(["runs", *args]) == 0
    assert run(["runs", "resume", "odd"]) == 2
    assert run(["chat", "odd", "--prompt", "x"]) == 2
    assert "itself broke" not in capsys.readouterr().err


def test_a_foreign_step_that_lacks_something_here_is_previewed_and_refused(
    capsys: pytest.CaptureFixture[str], theirs: Path, home: Path
) -> None:
    command = ["steps", "run", "theirs", "--catalog", str(theirs), "-c", "default"]
    assert run([*command, "-d", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["plan"]["launch"]["module"] == str(theirs / "sft/theirs/step.py")
    assert any("no_such_package" in finding["message"] for finding in found["findings"])
    assert run(command) == 2
    assert "no_such_package" in capsys.readouterr().err


def test_control_sequences_of_a_manifest_reach_no_terminal(
    capsys: pytest.CaptureFixture[str], theirs: Path
) -> None:
    assert run(["steps", "show", "theirs", "--catalog", str(theirs)]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert "Takes what comes." in text


def test_a_broken_step_is_told_on_stderr_and_leaves_the_json_whole(
    capsys: pytest.CaptureFixture[str], theirs: Path
) -> None:
    manifest = theirs / "sft/theirs/step.toml"
    manifest.write_text(manifest.read_text().replace("name = ", "nme = ", 1))
    assert run(["steps", "list", "--json", "--catalog", str(theirs)]) == 0
    output = capsys.readouterr()
    assert len(json.loads(output.out)) >= 4
    assert f"{manifest}:2:2" in output.err
    assert "'step.name' is missing" in output.err


@pytest.mark.parametrize(
    ("arguments", "incomplete", "offered"),
    [
        (["steps", "show"], "pe", {"peft/automodel"}),
        (["steps", "run"], "convert/", {"convert/merge_lora"}),
        (["steps", "run", "peft/automodel", "-c"], "t", {"tiny"}),
        (["steps", "run", "no/such", "-c"], "t", set()),
        (["steps", "show", "--catalog", "/no/such"], "p", set()),
    ],
)
def test_the_shell_completes_steps_and_configs(
    arguments: list[str], incomplete: str, offered: set[str]
) -> None:
    completions = ShellComplete(cli, {}, "tunedeck", "_C").get_completions(arguments, incomplete)
    assert {item.value for item in completions} == offered


def test_the_command_runs_as_a_process_of_its_own(theirs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tunedeck", "steps", "list", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TUNEDECK_STEPS": str(theirs)},
    )
    assert "sft/theirs" in [step["id"] for step in json.loads(done.stdout)]
    assert done.stderr == ""
