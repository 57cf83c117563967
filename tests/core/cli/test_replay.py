from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core import locations
from tunedeck.core.cli.main import run

CONFIG = """\
recipe: TrainFinetuneRecipeForNextTokenPrediction
model: {pretrained_model_name_or_path: org/model}
dataset: {path_or_dataset_id: rows.jsonl, seq_length: 64}
step_scheduler: {global_batch_size: 8, local_batch_size: 4, max_steps: 5}
optimizer: {lr: 0.001}
"""
ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
ENV = """\
[quick]
executor = "local"
gpus_per_node = 0
run_command = "grep -w lr {config}"

[other]
extends = "quick"
env_vars = { WHICH = "other" }

[far]
executor = "slurm"
host = "login"
account = "nlp"
run_partition = "attached"
batch_partition = "detached"
remote_job_dir = "/lustre/runs"
time = "01:00:00"
gpus_per_node = 2
"""


@pytest.fixture(autouse=True)
def work(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, and in it a launch that was saved as 'mine'."""
    folder = tmp_path / "repo"
    (folder / ".git").mkdir(parents=True)
    (folder / "mine.yaml").write_text(CONFIG)
    (folder / "rows.jsonl").write_text(ROW)
    (folder / "env.toml").write_text(ENV)
    for name in ("TUNEDECK_ENV_FILE", "NEMOTRON_ENV_FILE", "TUNEDECK_STEPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    command = ["steps", "run", "sft/automodel", "-c", "./mine.yaml", "-r", "quick"]
    assert run([*command, "--name", "first", "--save", "mine"]) == 0
    return folder


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def newest_run(capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert run(["runs", "list", "--json"]) == 0
    return document(capsys)[0]


def test_saving_while_launching_makes_a_replay_that_launches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = newest_run(capsys)
    assert run(["replay", "mine"]) == 0
    after = newest_run(capsys)
    assert after["run_id"] != before["run_id"]
    assert (after["name"], after["profile"], after["state"]) == ("first", "quick", "succeeded")


def test_a_dry_run_prints_the_plan_and_registers_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = newest_run(capsys)
    assert run(["replay", "mine", "optimizer.lr=7e-4", "-d", "--json"]) == 0
    plan = document(capsys)["plan"]
    assert plan["config_values"]["optimizer"]["lr"] == 0.0007
    assert newest_run(capsys) == before


def test_changes_need_consent_without_a_terminal(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "mine.yaml").write_text(CONFIG.replace("0.001", "0.004"))
    before = newest_run(capsys)
    assert run(["replay", "mine"]) == 2
    err = capsys.readouterr().err
    assert "config.optimizer.lr: 0.001 → 0.004" in err
    assert "--accept-changes" in err
    assert newest_run(capsys) == before

    assert run(["replay", "mine", "-d"]) == 0
    assert "0.001 → 0.004" in capsys.readouterr().err


def test_on_a_terminal_changes_are_asked_about(
    work: Path, on_terminal: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "mine.yaml").write_text(CONFIG.replace("0.001", "0.004"))
    before = newest_run(capsys)
    terminal = on_terminal(["replay", "mine"])
    assert "0.001 → 0.004" in terminal.until("Launch with these changes?")
    terminal.type("n")
    terminal.until("Nothing was launched.")
    assert terminal.ends_with() == 0
    assert newest_run(capsys) == before

    terminal = on_terminal(["replay", "mine"])
    terminal.until("Launch with these changes?")
    terminal.type("y")
    assert terminal.ends_with() == 0
    assert newest_run(capsys)["state"] == "succeeded"


@pytest.mark.parametrize(("flag", "rate"), [("--accept-changes", 0.004), ("--frozen", 0.001)])
def test_changes_are_taken_or_put_back(
    flag: str, rate: float, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "mine.yaml").write_text(CONFIG.replace("0.001", "0.004"))
    assert run(["replay", "mine", flag]) == 0
    record = newest_run(capsys)
    assert f"lr: {rate}" in (Path(record["run_dir"]) / "log.txt").read_text()


def test_another_profile_may_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", "mine", "-r", "other"]) == 0
    assert newest_run(capsys)["profile"] == "other"
    capsys.readouterr()
    assert run(["replay", "mine", "-b", "other", "--json"]) == 0
    run_id = document(capsys)["run_id"]
    assert run(["runs", "wait", run_id]) == 0


@pytest.mark.parametrize(("flag", "partition"), [("-r", "attached"), ("-b", "detached")])
def test_the_partition_follows_how_it_is_launched_now(
    flag: str, partition: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replay", "mine", flag, "far", "-d", "--json"]) == 0
    assert f"#SBATCH --partition={partition}\n" in document(capsys)["submission"]["script"]


def test_list_and_show_tell_what_there_is(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["replays", "list", "--json"]) == 0
    listed = {row["name"]: row for row in document(capsys)}
    assert set(listed) == {"mine", "tiny-lora", "tiny-sft"}
    assert listed["mine"]["source"] == "user"
    assert listed["tiny-lora"]["source"] == "shipped"
    assert run(["replays", "list"]) == 0
    assert "tiny-sft" in capsys.readouterr().out

    assert run(["replays", "show", "mine", "--json"]) == 0
    shown = document(capsys)
    assert shown["changes"] == []
    assert shown["replay"]["step"] == "sft/automodel"
    assert run(["replays", "show", "mine"]) == 0
    out, err = capsys.readouterr()
    assert tomllib.loads(out)["config"] == "./mine.yaml"
    assert "Nothing has changed" in err


def test_what_cannot_be_launched_any_more_can_still_be_shown(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "mine.yaml").unlink()
    capsys.readouterr()
    assert run(["replays", "show", "mine", "--json"]) == 0
    shown = document(capsys)
    assert shown["changes"] is None
    assert "mine.yaml" in shown["problem"]
    assert run(["replay", "mine"]) == 2


def test_a_run_is_saved_for_oneself_or_for_the_repository(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["replays", "save", "ours", "--from", "first", "--repository"]) == 0
    file = work / "profiles" / "ours.replay.toml"
    assert str(work) not in file.read_text()
    assert run(["replay", "ours"]) == 0
    capsys.readouterr()

    assert run(["replays", "save", "mine", "--from", "first"]) == 2
    assert "already" in capsys.readouterr().err
    assert run(["replays", "save", "mine", "--from", "first", "--force", "--json"]) == 0
    assert Path(document(capsys)["file"]).parent == locations.replays_dir()
    assert run(["replays", "save", "x", "--from", "nothing"]) == 102


def test_deleting_has_to_be_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    file = locations.replays_dir() / "mine.replay.toml"
    assert run(["replays", "delete", "mine"]) == 2
    assert file.exists()
    assert run(["replays", "delete", "mine", "--yes"]) == 0
    assert not file.exists()
    assert run(["replay", "mine"]) == 102
    assert run(["replays", "delete", "tiny-lora", "--yes"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["replay", "mine", "-r", "quick", "-b", "quick"],
        ["replay", "mine", "--frozen", "--accept-changes"],
        ["replay", "tiny-lora", "--frozen"],
        ["replay", "mine", "optimizer.lrr=1"],
    ],
)
def test_contradictions_and_mistakes_exit_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err


LAUNCH = ["steps", "run", "sft/automodel", "-c", "./mine.yaml", "-r", "quick", "--name", "first"]


def test_a_saved_name_is_not_silently_given_to_another_launch(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = newest_run(capsys)
    changed = [*LAUNCH, "optimizer.lr=0.002", "--save", "mine"]
    for flags in ([], ["--frozen"]):
        assert run([*changed, *flags]) == 2
        assert "config.optimizer.lr" in capsys.readouterr().err
    assert newest_run(capsys) == before

    assert run([*changed, "--accept-changes"]) == 0
    capsys.readouterr()
    assert run(["replay", "mine", "-d", "--json"]) == 0
    assert document(capsys)["plan"]["config_values"]["optimizer"]["lr"] == 0.002


def test_frozen_launches_what_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    before = newest_run(capsys)
    assert run([*LAUNCH, "--save", "mine", "--frozen"]) == 0
    assert newest_run(capsys)["run_id"] != before["run_id"]


@pytest.mark.parametrize("flags", [["--frozen"], ["--frozen", "--accept-changes", "--save", "x"]])
def test_flags_that_compare_with_nothing_are_refused(flags: list[str]) -> None:
    assert run([*LAUNCH, *flags]) == 2
