from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.cli.main import run


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "LEPTON_", "NEMOTRON_", "DGXCLOUD_", "HF_", "TUNEDECK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TUNEDECK_HOME", str(tmp_path / "home"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_headless_it_writes_and_says_what_is_next(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "init", "-c", "slurm"]) == 0
    out, err = capsys.readouterr()
    assert out == "Wrote env.slurm.toml with 29 profiles.\n"
    assert "SLURM_HOST" in err
    assert "tunedeck env check" in err
    assert "tunedeck steps run peft/automodel -c tiny -r slurm_peft_automodel --dry-run" in err
    assert (work / "env.slurm.toml").exists()
    assert run(["env", "check"]) == 2
    out, err = capsys.readouterr()
    assert "placeholder" in out + err


def test_the_seeds_examples_work_as_written(work: Path) -> None:
    assert (
        run(["steps", "run", "env/env_toml", "-c", "lepton", "output_path=env.toml", "force=true"])
        == 0
    )
    (work / "env.toml").unlink()
    assert (
        run(
            [
                "steps",
                "run",
                "env/env_toml",
                "-c",
                "lepton",
                "output_path=env.lepton.toml",
                "force=true",
                "sections.lepton_base.node_group=<lepton-node-group>",
                "sections.lepton_base.env_vars.WANDB_PROJECT=<wandb-project>",
                "sections.lepton_base.env_vars.WANDB_ENTITY=<wandb-entity>",
                "sections.lepton_base.env_vars.WANDB_NAME=<wandb-run-name>",
            ]
        )
        == 0
    )
    base = tomllib.loads((work / "env.lepton.toml").read_text())["lepton_base"]
    assert base["node_group"] == "<lepton-node-group>"
    assert base["env_vars"]["WANDB_NAME"] == "<wandb-run-name>"


def test_the_step_and_the_command_write_the_same_and_default_to_lepton(work: Path) -> None:
    assert run(["env", "init"]) == 0
    assert run(["steps", "run", "env/env_toml", "output_path=other.toml"]) == 0
    assert (work / "env.lepton.toml").read_bytes() == (work / "other.toml").read_bytes()


def test_an_existing_file_is_kept_until_forced(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "env.local.toml").write_text("# mine\n")
    assert run(["env", "init", "-c", "local"]) == 2
    assert "force=true" in capsys.readouterr().err
    assert (work / "env.local.toml").read_text() == "# mine\n"
    assert run(["env", "init", "-c", "local", "force=true"]) == 0
    assert "env.local.toml.bak" in capsys.readouterr().err
    assert (work / "env.local.toml").read_text().startswith("# mine\n")


@pytest.mark.parametrize("command", [["env", "init"], ["steps", "run", "env/env_toml"]])
def test_a_dry_run_shows_the_file_and_writes_nothing(
    command: list[str], work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "-c", "hf_jobs", "-d"]) == 0
    assert "hf_peft_automodel" in tomllib.loads(capsys.readouterr().out)
    assert list(work.iterdir()) == []


def test_json_is_one_document_with_everything(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "init", "-c", "dgxcloud", "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["written"] is True
    assert document["path"] == str(work / "env.dgxcloud.toml")
    assert document["text"] == (work / "env.dgxcloud.toml").read_text()
    assert len(document["profiles"]) == 29
    assert {value["env"] for value in document["open_values"]} == {
        "DGXCLOUD_BASE_URL",
        "DGXCLOUD_CLIENT_ID",
        "DGXCLOUD_PROJECT_NAME",
        "DGXCLOUD_PVC_CLAIM",
    }
    assert {finding["severity"] for finding in document["findings"]} <= {"error", "warning"}


def test_mistakes_are_said_without_a_traceback(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["-c", "slrum"],
        ["-c", "./none.yaml"],
        ["sections.lepton_bas.nodes=1"],
        ["output_path=/proc/no/such/place.toml"],
    ):
        assert run(["env", "init", *arguments]) in (1, 2)
        err = capsys.readouterr().err
        assert "error" in err
        assert "Traceback" not in err
    assert list(work.iterdir()) == []


def test_on_a_terminal_it_asks_the_site_shows_the_file_and_asks_again(
    work: Path, on_terminal: Any
) -> None:
    terminal = on_terminal(["env", "init", "-c", "slurm"], SLURM_ACCOUNT="from-env")
    terminal.until("Login host")
    terminal.type("login1")
    terminal.until("[from-env]")
    terminal.type("")
    terminal.until("Partition")
    terminal.type("")
    terminal.until("Your folder")
    terminal.type("/lustre/ada")
    shown = terminal.until("Write env.slurm.toml?")
    assert 'host = "login1"' in shown
    assert not (work / "env.slurm.toml").exists()
    terminal.type("y")
    terminal.until("Next:")
    assert terminal.ends_with() == 0
    base = tomllib.loads((work / "env.slurm.toml").read_text())["slurm_base"]
    assert (base["host"], base["account"]) == ("login1", "from-env")
    assert (base["workspace"], base["mounts"]) == ("/lustre/ada", ["${workspace}:${workspace}"])
    assert base["partition"].startswith("${oc.env:SLURM_PARTITION,")


def test_on_a_terminal_no_means_no(work: Path, on_terminal: Any) -> None:
    terminal = on_terminal(["env", "init", "-c", "local"])
    terminal.until("Write env.local.toml?")
    terminal.type("n")
    terminal.until("Nothing was written.")
    assert terminal.ends_with() == 0
    assert not (work / "env.local.toml").exists()


def test_on_a_terminal_yes_asks_nothing(work: Path, on_terminal: Any) -> None:
    terminal = on_terminal(["env", "init", "-c", "slurm", "--yes"])
    terminal.until("Wrote env.slurm.toml")
    assert terminal.ends_with() == 0


def test_on_a_terminal_forcing_shows_the_difference(work: Path, on_terminal: Any) -> None:
    assert run(["env", "init", "-c", "local"]) == 0
    terminal = on_terminal(
        ["env", "init", "-c", "local", "force=true", "sections.local_base.nodes=2"]
    )
    shown = terminal.until("Write env.local.toml?")
    assert "-nodes = 1" in shown
    assert "+nodes = 2" in shown
    assert "local_eval_model_eval" not in shown
    terminal.type("y")
    terminal.until("Next:")
    assert terminal.ends_with() == 0


def test_a_wrong_value_is_told_with_its_mend_and_apart_from_what_is_still_open(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["env", "init", "-c", "slurm", "sections.slurm_base.host=my host"]) == 0
    told = capsys.readouterr().err
    error, still = told.split("Still to fill in")
    assert "'my host' is no host" in error and "placeholder" not in error
    assert "slurm_base.host" not in still and "SLURM_ACCOUNT" in still
