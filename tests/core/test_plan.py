"""The plan and its submission: the same everywhere for the same inputs, and sent as previewed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Command
from tunedeck.core import locations
from tunedeck.core.errors import UsageError
from tunedeck.core.plan import new_run_id
from tunedeck.core.prepare import Prepared, prepare
from tunedeck.core.resolve import resolve
from tunedeck.core.selection import Selection

PROBE = """
import json, os, pathlib, sys
config = sys.argv[sys.argv.index("--config") + 1]
pathlib.Path(os.environ["TUNEDECK_RUN_DIR"], "seen.json").write_text(json.dumps({
    "argv": sys.argv[1:], "env": dict(os.environ), "config": pathlib.Path(config).read_text()}))
"""


def _tiny(**changes: Any) -> Selection:
    return Selection("peft/automodel", "tiny", **changes)


def _digest(**changes: Any) -> str:
    return resolve(_tiny(**changes)).digest


def test_run_ids_are_unique_and_sort_by_time() -> None:
    ids = [new_run_id() for _ in range(20)]  # of a thousand, some of one millisecond may collide
    assert len(set(ids)) == 20
    assert [one[:9] for one in ids] == sorted(one[:9] for one in ids)
    assert all(one.isascii() and one.islower() and one.isalnum() and len(one) == 13 for one in ids)


def test_the_digest_is_the_same_in_another_process_home_and_folder(
    tunedeck: Command, tmp_path: Path
) -> None:
    digests = {_digest()}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        done = tunedeck(
            "steps", "run", "peft/automodel", "-c", "tiny", "-d", "--json",
            env={"TUNEDECK_HOME": str(tmp_path / name / "home")}, cwd=tmp_path / name,
        )  # fmt: skip
        digests.add(json.loads(done.stdout)["plan"]["digest"])
    assert len(digests) == 1


def test_data_elsewhere_with_the_same_content_has_the_same_digest_and_other_content_another(
    tmp_path: Path,
) -> None:
    shipped = locations.assets_dir() / "word_problems" / "validation.jsonl"
    (tmp_path / "there").mkdir()
    shutil.copy(shipped, tmp_path / "here.jsonl")
    shutil.copy(shipped, tmp_path / "there" / "rows.jsonl")
    here = _digest(cwd=tmp_path, overrides=("dataset.path_or_dataset_id=here.jsonl",))
    there = _digest(cwd=tmp_path, overrides=("dataset.path_or_dataset_id=there/rows.jsonl",))
    assert here == there
    globbed = ("dataset.path_or_dataset_id=./*.jsonl",)
    matched = _digest(cwd=tmp_path, overrides=globbed)
    assert matched != _digest(cwd=tmp_path / "there", overrides=globbed)  # by its names
    with (tmp_path / "here.jsonl").open("a") as file:
        file.write(shipped.read_text().splitlines()[0] + "\n")
    assert _digest(cwd=tmp_path, overrides=("dataset.path_or_dataset_id=here.jsonl",)) != here
    assert _digest(cwd=tmp_path, overrides=globbed) != matched
    other = tmp_path / "other [folder]"
    other.mkdir()
    shutil.copy(tmp_path / "here.jsonl", other)
    assert _digest(cwd=other, overrides=globbed) == _digest(cwd=tmp_path, overrides=globbed)


@pytest.mark.parametrize(
    "override", ["optimizer.lr=1e-5", "run.env.env_vars.A=b", "run.env.nproc_per_node=2"]
)
def test_what_changes_the_run_changes_the_digest(override: str) -> None:
    assert _digest(overrides=(override,)) != _digest()


def test_the_env_files_wandb_table_fills_what_the_config_leaves_open(tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_text(
        "[wandb]\nproject = 'ours'\nentity = 'team'\n[here]\nexecutor = 'local'\n"
    )

    def wandb(*overrides: str) -> dict[str, Any]:
        plan = resolve(_tiny(profile="here", cwd=tmp_path, overrides=overrides))
        return dict(plan.config["wandb"])

    assert wandb("wandb.mode=offline")["project"] == "ours"
    assert wandb("wandb.mode=offline", "wandb.project=mine") | {"tags": []} == {
        **wandb("wandb.mode=offline"), "project": "mine", "tags": [],
    }  # fmt: skip
    assert wandb()["project"] is None


@pytest.mark.parametrize(
    "wrong", ["nodes = 'two'", "nodes = nan", "time = 2026-01-01", "env_vars = 'A=1'"]
)
def test_a_profile_with_a_value_of_the_wrong_type_makes_no_plan(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "env.toml").write_text(f"[here]\nexecutor = 'local'\n{wrong}\n")
    with pytest.raises(UsageError, match="must be") as failed:
        resolve(_tiny(profile="here", cwd=tmp_path))
    assert failed.value.place is not None
    assert failed.value.place.line == 3


def test_a_config_that_overrules_the_profile_is_pointed_out_and_its_parents_are_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "env.toml").write_text("[here]\nexecutor = 'local'\ntime = '01:00:00'\n")
    tiny = locations.shipped_steps_dir() / "peft" / "automodel" / "config" / "tiny.yaml"
    (tmp_path / "below.yaml").write_text(
        f"defaults: {tiny}\nrun: {{env: {{time: '02:00:00', workspace: /a}}}}\n"
    )
    (tmp_path / "own.yaml").write_text(
        "defaults: ./below.yaml\nrun: {env: {time: '03:00:00', workspace: /b}}\n"
    )
    chosen = Selection("peft/automodel", "./own.yaml", profile="here", cwd=tmp_path)
    (note,) = resolve(chosen).notes
    assert "sets time = 03:00:00, over 01:00:00 of profile here" in note
    assert f"{tmp_path / 'env.toml'}:3" in note


def test_the_name_of_a_run_does_not_change_the_digest() -> None:
    assert _digest(name="another") == _digest()


def test_a_dry_run_writes_nothing(tunedeck: Command, home: Path, tmp_path: Path) -> None:
    before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    assert tunedeck("steps", "run", "peft/automodel", "-c", "tiny", "-d").returncode == 0
    assert {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts} == before
    assert not home.exists()


def test_explain_names_the_file_line_or_override_of_each_value(tunedeck: Command) -> None:
    done = tunedeck(
        "steps", "run", "peft/automodel", "-c", "tiny", "-d", "--json", "--explain",
        "optimizer.lr=1e-4",
    )  # fmt: skip
    explained = json.loads(done.stdout)["explain"]
    rate = explained["optimizer.lr"]
    assert (rate["value"], rate["layer"], rate["text"]) == (
        1e-4, "command line", "optimizer.lr=1e-4",
    )  # fmt: skip
    assert rate["overrode"][0]["file"].endswith("tiny.yaml")
    assert rate["overrode"][0]["line"] > 0
    assert explained["optimizer.eps"]["layer"] == "default"


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    prompt=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30),
    value=st.text(
        st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="$"), max_size=20
    ),
)
def test_what_runs_is_byte_for_byte_what_was_previewed(
    prompt: str, value: str, tmp_path: Path
) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)
    (tmp_path / "env.toml").write_text(
        "[probe]\nexecutor = 'local'\nsecrets = ['MY_TOKEN']\n"
        f"run_command = '{sys.executable} {probe} {{script}} --config {{config}}'\n"
        f"[probe.env_vars]\nWORDS = {json.dumps(value, ensure_ascii=False)}\n"
    )
    os.environ["MY_TOKEN"] = "canary-3c1f"
    prepared = asyncio.run(
        prepare(
            _tiny(
                profile="probe",
                cwd=tmp_path,
                overrides=(f"sampling.prompts=[{json.dumps(prompt, ensure_ascii=False)}]",),
            ),
            online=False,
        )
    )
    shown = json.loads(json.dumps(prepared.submission.to_json()))
    seen = _run(prepared)
    assert seen["config"] == next(
        file["content"] for file in shown["files"] if file["path"].endswith("config.yaml")
    )
    masked = {**seen["env"], "MY_TOKEN": "********"}
    assert {key: masked.get(key) for key in shown["env"]} == shown["env"]
    assert seen["env"]["MY_TOKEN"] == "canary-3c1f"
    assert shown["argv"][:2] == ["bash", "-c"]
    assert "canary" not in json.dumps(shown)


def _run(prepared: Prepared) -> dict[str, Any]:
    """Submit as previewed, wait for the end, and return what the job saw."""

    async def submit() -> None:
        handle = await prepared.backend.submit(prepared.submission)
        while not (await prepared.backend.status(handle)).state.terminal:
            await asyncio.sleep(0.02)

    asyncio.run(submit())
    seen: dict[str, Any] = json.loads((prepared.plan.run_dir / "seen.json").read_text())
    return seen


def test_the_previewed_command_is_shell_safe(tunedeck: Command) -> None:
    done = tunedeck("steps", "run", "peft/automodel", "-c", "tiny", "-d", "--json")
    submission = json.loads(done.stdout)["submission"]
    words = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {submission['command']}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert words.stdout.split("\0")[:-1] == submission["argv"]
