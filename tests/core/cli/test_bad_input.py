"""What a mistake gets: an exit code, a message that names it, and nothing lost or left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from tunedeck.core.cli.main import run

ROW = json.dumps(
    {"messages": [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]}
)
TINY = ("steps", "run", "peft/automodel", "-c", "tiny")

MISTAKES = {
    "an unknown command": (("stpes",), 2, "Did you mean 'steps'"),
    "an unknown step": (("steps", "run", "peft/automodle"), 2, "peft/automodel"),
    "an ambiguous tail": (("steps", "run", "automodel"), 2, "sft/automodel"),
    "an unknown config": (("steps", "run", "peft/automodel", "-c", "tyni"), 2, "tiny"),
    "a config file that is not there": (("steps", "run", "peft/automodel", "-c", "./x.yaml"), 2,
                                        "x.yaml"),
    "an unknown key": ((*TINY, "optimiser.lr=1"), 2, "optimizer"),
    "an unknown nested key": ((*TINY, "optimizer.lrr=1"), 2, "optimizer.lr"),
    "a value of the wrong type": ((*TINY, "optimizer.lr=fast"), 2, "optimizer.lr"),
    "a value out of range": ((*TINY, "step_scheduler.max_steps=-1"), 2, "max_steps"),
    "an override without '='": ((*TINY, "max_steps"), 2, "="),
    "an option's typo": ((*TINY, "--cofnig", "tiny"), 2, "--config"),
    "two places at once": ((*TINY, "-r", "local", "-b", "local"), 2, "exclude"),
    "a profile by an unset variable": ((*TINY, "-r", ""), 2, "profile ''"),
    "a detached one": ((*TINY, "-b", ""), 2, "profile ''"),
    "a name of two lines": ((*TINY, "--name", "a\nb"), 2, "one line"),
    "a replay's name that is none": ((*TINY, "--save", "a/b", "-d"), 2, "a/b"),
    "a replay by an unset variable": ((*TINY, "--save", ""), 2, "name for a replay"),
    "an unknown profile": ((*TINY, "-r", "slurm_bsae"), 2, "slurm_bsae"),
    "an env file that is not there": ((*TINY, "--env-file", "none.toml"), 2, "none.toml"),
    "data that is not there": ((*TINY, "dataset.path_or_dataset_id=./none.jsonl"), 2,
                               "none.jsonl"),
    "required data that is not given": (("steps", "run", "peft/automodel", "-c", "default"), 2,
                                        "dataset.path_or_dataset_id"),
    "a model folder that is not there": (
        (*TINY, "model.pretrained_model_name_or_path=./no/such/model"), 2, "model"),
    "a batch that does not divide": (
        (*TINY, "step_scheduler.global_batch_size=10", "step_scheduler.local_batch_size=4"), 2,
        "global_batch_size"),
    "an unknown run": (("runs", "show", "nothing"), 102, "nothing"),
    "a run to hand over by an unset variable": ((*TINY, "--from", ""), 102, "no run ''"),
    "the log of an unknown run": (("runs", "logs", "nothing"), 102, "nothing"),
    "an unknown replay": (("replay", "nothing"), 102, "nothing"),
    "an interpolation of nothing": ((*TINY, "wandb.project=${oc.env:NOT_SET_AT_ALL}"), 2,
                                    "NOT_SET_AT_ALL"),
    "a catalog that is not there": (("steps", "list", "--catalog", "none"), 2, "none"),
    "a run to hand over that is not there": (("steps", "run", "convert/merge_lora", "--from", "x"),
                                             102, "x"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_and_nothing_is_registered(
    mistake: str, tunedeck: Command, home: Path
) -> None:
    args, code, words = MISTAKES[mistake]
    done = tunedeck(*args)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stdout == ""
    assert not (home / "state" / "runs").exists()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ROW, "{not json", ROW], "2"),
        ([ROW, '{"messages": [{"role": "user", "content": "and?"}]}'], "2"),
        (['{"messages": [{"role": "user", "content": "a"}, {"role": "assistant"}]}'], "1"),
        ([], "empty"),
    ],
)
def test_data_that_cannot_train_is_refused_with_its_row_before_a_run_is_registered(
    rows: list[str], words: str, tunedeck: Command, tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(f"{row}\n" for row in rows))
    done = tunedeck(*TINY, f"dataset.path_or_dataset_id={data}")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert json.loads(tunedeck("runs", "list", "--json").stdout) == []


def test_packed_parquet_is_refused_by_name(tunedeck: Command, tmp_path: Path) -> None:
    (tmp_path / "packed.parquet").write_bytes(b"PAR1")
    done = tunedeck(*TINY, f"dataset.path_or_dataset_id={tmp_path / 'packed.parquet'}")
    assert done.returncode == 2
    assert "Parquet" in done.stderr


def test_an_unwritable_home_is_said_in_words(tunedeck: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = tunedeck(*TINY, env={"TUNEDECK_HOME": str(tmp_path / "file")})
    assert done.returncode in (1, 2)
    assert "TUNEDECK_HOME" in done.stderr


def test_a_working_folder_that_was_removed_is_said_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run([*TINY, "-d"]) == 1
    assert "The working folder is no longer there." in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
