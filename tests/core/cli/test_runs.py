from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.backends.base import Handle, load_backend
from tunedeck.core.cli.main import run
from tunedeck.core.launch import launch
from tunedeck.core.plan import Plan
from tunedeck.core.resolve import resolve
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.runs.registry import Registry
from tunedeck.core.runs.watch import wait_until_ended
from tunedeck.core.selection import Selection
from tunedeck.core.states import RunState, Status

MakePlan = Callable[..., Plan]
Capture = pytest.CaptureFixture[str]

CONTRACT_KEYS = [
    "run_id",
    "name",
    "step",
    "config",
    "profile",
    "backend",
    "job_id",
    "state",
    "reason",
    "exit_code",
    "created_at",
    "started_at",
    "ended_at",
    "run_dir",
]

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
TRAINS = """
    print("tunedeck: total_steps=4 world_size=1")
    for step in range(1, 5):
        print(f"step={step} loss={5 - step}")
    print("step=4 val_loss=1.25")
"""


def start(plan: Plan) -> RunRecord:
    backend = load_backend(plan.executor, dict(plan.profile_values))
    return asyncio.run(launch(plan, backend.render(plan), backend, Registry()))


def finish(plan: Plan) -> RunRecord:
    return asyncio.run(wait_until_ended(start(plan), Registry(), 20.0))


def answer(capture: Capture, *args: str) -> tuple[int, Any]:
    """The exit code and the JSON document of a command."""
    code = run(["runs", *args, "--json"])
    return code, json.loads(capture.readouterr().out)


class TestList:
    def test_the_newest_comes_first_as_it_is_now(
        self, make_plan: MakePlan, capsys: Capture
    ) -> None:
        failed = start(make_plan("raise SystemExit(3)", name="one"))
        running = start(make_plan(SLEEPER, name="two"))
        asyncio.run(wait_until_ended(failed, Registry(), 20.0))
        code, rows = answer(capsys, "list")
        assert code == 0
        assert [(row["run_id"], row["state"]) for row in rows] == [
            (running.run_id, "running"),
            (failed.run_id, "failed"),
        ]
        assert rows[1]["exit_code"] == 3
        assert list(rows[0]) == CONTRACT_KEYS

    def test_filters(self, make_plan: MakePlan, capsys: Capture) -> None:
        for code in (0, 1, 1):
            finish(make_plan(f"raise SystemExit({code})"))
        assert len(answer(capsys, "list", "--state", "failed")[1]) == 2
        assert len(answer(capsys, "list", "--limit", "1")[1]) == 1
        assert answer(capsys, "list", "--step", "convert/merge_lora")[1] == []

    def test_a_table_for_people(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = finish(make_plan("raise SystemExit(3)", name="nightly"))
        assert run(["runs", "list"]) == 0
        table = capsys.readouterr().out
        assert record.run_id in table
        assert "nightly" in table
        assert "exit code 3" in table

    def test_no_runs_says_how_to_start_one(self, home: Path, capsys: Capture) -> None:
        assert run(["runs", "list"]) == 0
        said = capsys.readouterr()
        assert said.out == ""
        assert "tunedeck steps run" in said.err
        assert answer(capsys, "list") == (0, [])

    def test_a_machine_that_restarted_leaves_no_run_running(
        self, make_plan: MakePlan, capsys: Capture
    ) -> None:
        record = start(make_plan(SLEEPER))
        job = json.loads((record.run_dir / "job.json").read_text())
        job["supervisor"]["boot"] = "another"
        (record.run_dir / "job.json").write_text(json.dumps(job))
        (row,) = answer(capsys, "list")[1]
        assert (row["state"], row["reason"]) == ("lost", "the machine restarted")


class TestShow:
    def test_a_run_that_went_well(self, make_plan: MakePlan, capsys: Capture) -> None:
        plan = make_plan(TRAINS)
        record = finish(plan)
        (plan.run_dir / "checkpoints" / "step_000004").mkdir(parents=True)
        (plan.run_dir / "checkpoints" / "latest").symlink_to("step_000004")
        code, shown = answer(capsys, "show", record.run_id)
        assert code == 0
        assert shown["state"] == "succeeded"
        assert shown["digest"] == plan.digest
        assert shown["world_size"] == 1
        assert shown["mesh"] == {}
        assert shown["diagnosis"] is None
        (checkpoint,) = shown["checkpoints"]
        assert (checkpoint["step"], checkpoint["latest"], checkpoint["best"]) == (4, True, False)
        assert run(["runs", "show", record.run_id]) == 0
        assert "val_loss" in capsys.readouterr().out

    def test_a_failure_comes_with_its_diagnosis(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = finish(make_plan("raise MemoryError('CUDA out of memory')"))
        diagnosis = answer(capsys, "show", record.run_id)[1]["diagnosis"]
        assert "CUDA out of memory" in diagnosis["cause"]
        assert "CUDA out of memory" in diagnosis["evidence"]
        assert any("local_batch_size" in advice for advice in diagnosis["advice"])
        assert run(["runs", "show", record.run_id]) == 0
        assert "local_batch_size" in capsys.readouterr().out

    def test_by_name_and_by_the_start_of_the_id(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = finish(make_plan(name="nightly"))
        assert answer(capsys, "show", "nightly")[1]["run_id"] == record.run_id
        assert answer(capsys, "show", record.run_id[:-1])[1]["run_id"] == record.run_id

    @pytest.mark.parametrize(
        "command", ["show", "logs", "metrics", "wait", "cancel", "delete", "resume"]
    )
    def test_what_is_not_there_is_102_with_the_nearest(
        self, command: str, make_plan: MakePlan, capsys: Capture
    ) -> None:
        finish(make_plan(name="nightly"))
        assert run(["runs", command, "nightyl"]) == 102
        said = capsys.readouterr()
        assert said.out == ""
        assert "Did you mean 'nightly'?" in said.err


class TestLogs:
    def test_in_a_pipe_it_is_the_very_bytes(self, make_plan: MakePlan, home: Path) -> None:
        data = b"a\r\xff\x1b[2J\x00\nno newline"
        record = finish(make_plan(f"import os; os.write(1, {data!r})"))
        printed = tunedeck("logs", record.run_id)
        assert printed.stdout == data + b"\ntunedeck: exit=0\n"
        assert (printed.returncode, printed.stderr) == (0, b"")

    def test_the_last_lines(self, make_plan: MakePlan) -> None:
        record = finish(make_plan("for n in range(100): print(n)"))
        assert tunedeck("logs", record.run_id, "--tail", "2").stdout == b"99\ntunedeck: exit=0\n"

    def test_json_is_an_object_a_line(self, make_plan: MakePlan) -> None:
        record = finish(make_plan("print('a'); print('b')"))
        for follow in ([], ["-f"]):
            lines = tunedeck("logs", record.run_id, "--json", *follow).stdout.splitlines()
            assert [json.loads(line)["line"] for line in lines] == ["a", "b", "tunedeck: exit=0"]
            assert json.loads(lines[-1])["offset"] == record.log.stat().st_size

    def test_following_a_run_ends_as_it_ends(self, make_plan: MakePlan) -> None:
        script = "import time; print('up', flush=True); time.sleep(0.5); raise SystemExit(9)"
        record = start(make_plan(script))
        followed = tunedeck("logs", "-f", record.run_id)
        assert followed.returncode == 100
        assert followed.stdout.splitlines() == [b"up", b"tunedeck: exit=9"]
        assert b"exit code 9" in followed.stderr


def tunedeck(*args: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from tunedeck.core.cli.main import main; main()", "runs"]
    return subprocess.run([*command, *args], capture_output=True, timeout=60, check=False)


class TestMetrics:
    def test_points(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = finish(make_plan(TRAINS))
        code, points = answer(capsys, "metrics", record.run_id)
        assert code == 0
        assert points[0] == {"step": 1, "loss": 4}
        assert points[-1] == {"step": 4, "loss": 1, "val_loss": 1.25}
        assert run(["runs", "metrics", record.run_id]) == 0
        assert "█" in capsys.readouterr().out

    def test_a_run_that_measured_nothing(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = finish(make_plan())
        assert answer(capsys, "metrics", record.run_id) == (0, [])
        assert run(["runs", "metrics", record.run_id]) == 0


class TestWait:
    @pytest.mark.parametrize(("code", "expected"), [(0, 0), (7, 100), (75, 100)])
    def test_it_ends_as_the_run_does(
        self, code: int, expected: int, make_plan: MakePlan, capsys: Capture
    ) -> None:
        record = start(make_plan(f"raise SystemExit({code})"))
        exit_code, document = answer(capsys, "wait", record.run_id)
        assert exit_code == expected
        assert document["exit_code"] == code

    def test_a_run_that_goes_on_is_101(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = start(make_plan(SLEEPER))
        code, document = answer(capsys, "wait", record.run_id, "--timeout", "0.2")
        assert (code, document["state"]) == (101, "running")


class TestCancel:
    def test_it_is_confirmed(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = start(make_plan(SLEEPER))
        code, document = answer(capsys, "cancel", record.run_id)
        assert (code, document["state"]) == (0, "cancelled")
        assert answer(capsys, "wait", record.run_id)[0] == 103

    def test_a_run_that_has_ended_keeps_its_end(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = finish(make_plan())
        code, document = answer(capsys, "cancel", record.run_id)
        assert (code, document["state"]) == (0, "succeeded")


class TestDelete:
    def test_record_and_folder_go(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = finish(make_plan())
        code, document = answer(capsys, "delete", record.run_id, "--yes")
        assert (code, document) == (0, {"run_id": record.run_id, "deleted": True})
        assert not record.run_dir.exists()
        assert Registry().list() == []

    def test_a_run_that_goes_on_is_refused(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = start(make_plan(SLEEPER))
        assert run(["runs", "delete", record.run_id, "--yes"]) == 2
        assert f"tunedeck runs cancel {record.run_id}" in capsys.readouterr().err
        assert record.run_dir.exists()

    def test_without_a_terminal_it_wants_yes(self, make_plan: MakePlan) -> None:
        record = finish(make_plan())
        refused = tunedeck("delete", record.run_id)
        assert refused.returncode == 2
        assert b"--yes" in refused.stderr
        assert record.run_dir.exists()

    def test_a_folder_that_is_gone_is_no_matter(self, make_plan: MakePlan) -> None:
        record = finish(make_plan())
        shutil.rmtree(record.run_dir)
        assert run(["runs", "delete", record.run_id, "--yes"]) == 0


class TestResume:
    def test_a_run_that_goes_on_has_nothing_to_resume_from(
        self, make_plan: MakePlan, capsys: Capture
    ) -> None:
        record = start(make_plan(SLEEPER))
        assert run(["runs", "resume", record.run_id]) == 2
        assert f"tunedeck runs wait {record.run_id}" in capsys.readouterr().err

    def test_a_run_without_a_checkpoint_says_so(self, make_plan: MakePlan, capsys: Capture) -> None:
        record = finish(make_plan())
        assert run(["runs", "resume", record.run_id]) == 2
        assert "no checkpoint" in capsys.readouterr().err

    def test_its_partition_follows_how_it_is_resumed(
        self, tmp_path: Path, home: Path, capsys: Capture
    ) -> None:
        (tmp_path / "env.toml").write_text(
            "[far]\nexecutor = 'slurm'\nhost = 'login'\naccount = 'nlp'\ntime = '01:00:00'\n"
            "run_partition = 'attached'\nbatch_partition = 'detached'\nremote_job_dir = '/runs'\n"
        )
        plan = resolve(Selection("peft/automodel", "tiny", profile="far", cwd=tmp_path))
        registry = Registry()
        registry.add(RunRecord.of(plan, forced=False))
        handle = Handle(plan.run_id, "4711", {"run_dir": f"/runs/{plan.run_id}"})
        registry.update(plan.run_id, Status(RunState.FAILED, "FAILED"), handle=handle)
        for flags, partition in (((), "attached"), (("-b",), "detached")):
            assert run(["runs", "resume", plan.run_id, *flags, "-d", "--json"]) == 0
            script = json.loads(capsys.readouterr().out)["submission"]["script"]
            assert f"#SBATCH --partition={partition}\n" in script


RANKS = """
    for rank in (0, 1):
        print(f"[rank{rank}]: step={rank + 1} loss=2.0")
        print(f"[rank{rank}]: WARNING slow")
    print("[rank1]: ValueError: boom")
"""


def test_a_log_can_be_narrowed_to_a_rank_or_to_what_is_serious(
    capfdbinary: pytest.CaptureFixture[bytes], make_plan: MakePlan
) -> None:
    record = finish(make_plan(RANKS))

    def lines(*args: str) -> list[bytes]:
        assert run(["runs", "logs", record.run_id, *args]) == 0
        return capfdbinary.readouterr().out.splitlines()

    assert all(b"[rank1]" in text for text in lines("--rank", "1"))
    assert lines("--level", "error") == [b"[rank1]: ValueError: boom"]
    assert len(lines("--level", "warning")) == 3
    assert lines("--level", "warning", "--rank", "0") == [b"[rank0]: WARNING slow"]
    assert lines("--rank", "1", "--tail", "1") == [b"[rank1]: ValueError: boom"]
    followed = lines("-f", "--level", "error")
    assert b"[rank1]: ValueError: boom" in followed
    assert not any(b"WARNING" in text for text in followed)


def test_curves_of_several_runs_are_drawn_in_one_frame(
    capsys: Capture, make_plan: MakePlan
) -> None:
    first, second = finish(make_plan(TRAINS, name="one")), finish(make_plan(TRAINS, name="two"))
    assert run(["runs", "metrics", first.run_id, second.run_id, "--plot"]) == 0
    out = capsys.readouterr().out
    assert "1 " + first.run_id in out
    assert "2 " + second.run_id in out
    assert "step 4" in out
    code, series = answer(capsys, "metrics", first.run_id, second.run_id, "--key", "loss")
    assert code == 0
    assert [one["values"] for one in series] == [[4.0, 3.0, 2.0, 1.0]] * 2
    code, points = answer(capsys, "metrics", "one", "two")
    assert [one["run_id"] for one in points] == [first.run_id, second.run_id]
    assert run(["runs", "metrics", "one", "--key", "los"]) == 102
    assert "Did you mean 'loss'?" in capsys.readouterr().err
