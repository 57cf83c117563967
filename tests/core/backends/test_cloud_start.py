"""The script that a cloud job starts with, run for real by bash."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.core.conftest import PlanMaker
from tunedeck.core.backends.cloud.start import Start, clone, render_start
from tunedeck.core.errors import UsageError
from tunedeck.core.plan import Launch

LIMIT_S = 60.0


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """What the job has as TMPDIR."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


class Job:
    """A rendered script and the process that it is."""

    def __init__(self, text: str, scratch: Path, kept: Path) -> None:
        self.kept = kept
        self.process = subprocess.Popen(
            ["bash", "-c", text],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": os.environ["PATH"], "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"},
            start_new_session=True,
        )

    def end(self) -> tuple[int, list[str]]:
        out, _ = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, out.splitlines()


def start(
    make_plan: PlanMaker, scratch: Path, command: str, *, config: Any = None, **changes: Any
) -> Job:
    plan = make_plan(profile_values={"run_command": command}, launch=Launch("command", "x.y"))
    kept = scratch.parent / "kept"
    facts: dict[str, Any] = {
        "run_dir": "$scratch/run",
        "keep_dir": str(kept),
        "code": [],
        "config": config or {"checkpoint": {"restore_from": None}},
        **changes,
    }
    return Job(render_start(plan, Start(**facts)).text, scratch, kept)


def test_its_last_word_is_the_exit_code_in_the_log_and_in_a_file(
    make_plan: PlanMaker, scratch: Path
) -> None:
    job = start(make_plan, scratch, "echo hello; exit 7")
    code, lines = job.end()
    assert code == 7
    assert lines == ["hello", "tunedeck: exit=7"]
    assert json.loads((job.kept / "exit.json").read_text())["exit_code"] == 7
    assert list((scratch / "tunedeck").iterdir()) == []


def test_the_code_that_the_run_means_counts_where_a_launcher_changes_it(
    make_plan: PlanMaker, scratch: Path
) -> None:
    job = start(make_plan, scratch, "echo 75 > $TUNEDECK_EXIT_FILE; exit 1")
    assert job.end()[0] == 75


def test_the_config_arrives_byte_for_byte(make_plan: PlanMaker, scratch: Path) -> None:
    import yaml

    config = {"text": "it's $HOME `x` \\ @run_dir@ \u2713", "checkpoint": {"restore_from": None}}
    job = start(make_plan, scratch, "true {config}", config=config)
    assert job.end()[0] == 0
    assert yaml.safe_load((job.kept / "config.yaml").read_text()) == config


def test_what_was_made_is_kept_without_links(make_plan: PlanMaker, scratch: Path) -> None:
    command = (
        "mkdir -p checkpoints/step_000002 checkpoints/step_000004.in_progress merged-hf;"
        " echo w > checkpoints/step_000002/w; ln -s step_000002 checkpoints/latest;"
        ' echo m > merged-hf/m; echo "{\\"checkpoint\\": \\"$PWD/checkpoints/step_000002\\"}"'
        " > result.json"
    )
    job = start(make_plan, scratch, command)
    assert job.end()[0] == 0
    kept = job.kept
    assert (kept / "checkpoints" / "latest").read_text() == "step_000002"
    assert not (kept / "checkpoints" / "latest").is_symlink()
    assert (kept / "checkpoints" / "step_000002" / "w").read_text() == "w\n"
    assert not (kept / "checkpoints" / "step_000004.in_progress").exists()
    assert (kept / "merged-hf" / "m").exists()
    told = json.loads((kept / "result.json").read_text())["checkpoint"]
    assert told == str(kept / "checkpoints" / "step_000002")


def test_started_again_it_goes_on_from_what_it_kept(make_plan: PlanMaker, scratch: Path) -> None:
    first = start(
        make_plan,
        scratch,
        "mkdir -p checkpoints/step_000002; echo 2 > checkpoints/step_000002/state;"
        " ln -s step_000002 checkpoints/latest; exit 1",
    )
    assert first.end()[0] == 1
    again = start(make_plan, scratch, 'cat "$(sed -n "s/ *restore_from: //p" {config})/state"')
    code, lines = again.end()
    assert (code, "2" in lines) == (0, True), lines
    assert (again.kept / "checkpoints" / "step_000002" / "state").exists()


def test_told_to_resume_it_finds_the_other_run_s_latest(
    make_plan: PlanMaker, scratch: Path
) -> None:
    other = scratch.parent / "other" / "checkpoints"
    (other / "step_000004").mkdir(parents=True)
    (other / "step_000004" / "state").write_text("four\n")
    (other / "latest").write_text("step_000004")
    config = {"checkpoint": {"restore_from": str(other / "latest")}}
    job = start(
        make_plan,
        scratch,
        'cat "$(sed -n "s/ *restore_from: //p" {config})/state"',
        config=config,
    )
    assert "four" in job.end()[1]


def test_told_to_resume_from_nothing_it_says_so(make_plan: PlanMaker, scratch: Path) -> None:
    config = {"checkpoint": {"restore_from": "/no/such"}}
    code, lines = start(make_plan, scratch, "echo never", config=config).end()
    assert code == 2
    assert lines == ["tunedeck: error: there is no checkpoint at /no/such", "tunedeck: exit=2"]


def test_results_that_cannot_be_kept_fail_the_job(make_plan: PlanMaker, scratch: Path) -> None:
    file = scratch.parent / "file"
    file.write_text("")
    code, lines = start(make_plan, scratch, "true", keep_dir=str(file / "below")).end()
    assert code == 1
    assert lines[-1] == "tunedeck: exit=1"
    assert any("could not be kept" in line for line in lines)


def test_asked_to_end_the_run_is_told_and_may_save(make_plan: PlanMaker, scratch: Path) -> None:
    # A shell cannot trap a signal that is ignored as it starts; the step is a Python.
    python = (
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: (print('saving'), sys.exit(75)))\n"
        "pathlib.Path(os.environ['TMPDIR'], 'ready').touch()\n"
        "time.sleep(100)\n"
    )
    program = scratch.parent / "program.py"
    program.write_text(python)
    job = start(make_plan, scratch, f"exec python3 {program}")
    deadline = time.monotonic() + LIMIT_S
    while not (scratch / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.process.send_signal(signal.SIGTERM)
    code, lines = job.end()
    assert code == 75
    assert lines[-2:] == ["saving", "tunedeck: exit=75"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_repository_is_cloned_at_its_ref_or_the_job_ends(
    make_plan: PlanMaker, scratch: Path
) -> None:
    repo = scratch.parent / "repo"
    git = ["git", "-C", str(repo), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q", "-b", "main", str(repo)], check=True)
    for text in ("one", "two"):
        (repo / "said.txt").write_text(f"{text}\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", text], check=True)
    subprocess.run([*git, "tag", "v1", "HEAD~1"], check=True)
    first = subprocess.run(
        [*git, "rev-parse", "HEAD~1"], check=True, capture_output=True, text=True
    ).stdout.strip()
    said = {}
    for ref in ("", "main", "v1", first, "nosuch"):
        code = clone(f"file://{repo}", ref)
        job = start(make_plan, scratch, "cat said.txt", code=code, cwd="$scratch/repo")
        said[ref] = (job.process.wait(LIMIT_S), job.end()[1])
    assert [said[ref][1][1] for ref in ("", "main", "v1", first)] == ["two", "two", "one", "one"]
    assert said["v1"][1][0] == f"tunedeck: code is {first}"
    assert said["nosuch"] == (
        2,
        ["tunedeck: error: GIT_REF nosuch is not in the repository", "tunedeck: exit=2"],
    )


def test_shell_text_of_several_lines_stays_as_it_is(make_plan: PlanMaker, scratch: Path) -> None:
    code = ["cat > $scratch/said << 'END'", "  two", " lines", "END"]
    job = start(make_plan, scratch, 'cat "$TMPDIR"/tunedeck/*/said; echo "a\n  b"', code=code)
    assert job.end() == (0, ["  two", " lines", "a", "  b", "tunedeck: exit=0"])


def test_a_script_that_no_process_could_be_started_with_is_refused(make_plan: PlanMaker) -> None:
    config = {"text": "x" * (128 << 10)}
    with pytest.raises(UsageError, match="KiB") as raised:
        render_start(make_plan(), Start(run_dir="/r", keep_dir="", code=(), config=config))
    assert raised.value.fix
