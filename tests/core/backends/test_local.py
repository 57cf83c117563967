from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.core.backends.local_runs import (
    SLEEPER,
    MakePlan,
    backend_for,
    end_of,
    job_of,
    lines_of,
    log_of,
    said,
    start,
    until,
)
from tunedeck.core.backends.base import Handle
from tunedeck.core.backends.local.backend import LocalBackend
from tunedeck.core.plan import Launch, Plan, SecretRef
from tunedeck.core.process import ProcessMark, processes_of
from tunedeck.core.states import RunState


class TestOutcome:
    def test_a_command_that_succeeds(self, make_plan: MakePlan) -> None:
        plan = make_plan("print('hello')")
        before = time.time()
        backend, handle = start(plan)
        status = end_of(backend, handle)
        assert (status.state, status.exit_code) == (RunState.SUCCEEDED, 0)
        assert status.started_at is not None
        assert status.ended_at is not None
        assert before <= status.started_at <= status.ended_at <= time.time()
        assert log_of(plan) == b"hello\ntunedeck: exit=0\n"

    def test_the_exit_code_of_a_failure_is_kept(self, make_plan: MakePlan) -> None:
        plan = make_plan("import sys; print('no newline', end=''); sys.exit(7)")
        status = end_of(*start(plan))
        assert (status.state, status.exit_code) == (RunState.FAILED, 7)
        assert "exit code 7" in status.reason
        assert log_of(plan) == b"no newline\ntunedeck: exit=7\n"

    def test_exit_75_means_preempted(self, make_plan: MakePlan) -> None:
        status = end_of(*start(make_plan("raise SystemExit(75)")))
        assert (status.state, status.exit_code) == (RunState.PREEMPTED, 75)

    def test_a_code_that_the_command_wrote_down_counts_over_its_launchers(
        self, make_plan: MakePlan
    ) -> None:
        script = "import os; open(os.environ['TUNEDECK_EXIT_FILE'], 'w').write('75'); os._exit(1)"
        assert end_of(*start(make_plan(script))).state is RunState.PREEMPTED

    def test_a_command_that_is_not_there(self, make_plan: MakePlan) -> None:
        launch = Launch("python", "some.module")
        values = {"run_command": "", "venv": "/nonexistent"}
        plan = make_plan(launch=launch, profile_values=values)
        status = end_of(*start(plan))
        assert (status.state, status.exit_code) == (RunState.FAILED, 127)
        assert "/nonexistent/bin/python" in status.reason
        assert log_of(plan).endswith(b"tunedeck: exit=127\n")

    def test_a_folder_that_is_not_there(self, make_plan: MakePlan) -> None:
        status = end_of(*start(make_plan(selection={"cwd": "/nonexistent"})))
        assert "/nonexistent" in status.reason

    def test_both_streams_are_in_the_log_byte_for_byte(self, make_plan: MakePlan) -> None:
        data = bytes(range(256)) + b"\r\n\x1b[2J\n"
        script = f"import os; os.write(1, {data!r}); os.write(2, b'err\\n')"
        plan = make_plan(script)
        end_of(*start(plan))
        assert log_of(plan) == data + b"err\ntunedeck: exit=0\n"

    def test_nothing_of_a_run_stays_behind(self, make_plan: MakePlan) -> None:
        script = """
            import subprocess
            subprocess.Popen(["sleep", "60"], start_new_session=True)
        """
        plan = make_plan(script)
        assert end_of(*start(plan)).state is RunState.SUCCEEDED
        assert processes_of(plan.run_id, None) == []


class TestSubmission:
    def test_what_runs_is_what_was_shown(self, make_plan: MakePlan) -> None:
        plan = make_plan("import sys; print(sys.orig_argv)", name="it's $HOME")
        backend = backend_for(plan)
        submission = backend.render(plan)
        asyncio.run(backend.submit(submission))
        until(said(plan, b"exit="))
        assert shlex.split(submission.command) == list(submission.argv)
        for file in submission.files:
            assert Path(file.path).read_text() == file.content

    def test_rendering_is_pure_and_repeatable(self, make_plan: MakePlan, home: Path) -> None:
        plan = make_plan()
        assert backend_for(plan).render(plan) == backend_for(plan).render(plan)
        assert not home.exists()

    def test_sent_twice_it_is_one_job(self, make_plan: MakePlan) -> None:
        plan = make_plan(SLEEPER)
        backend = backend_for(plan)

        async def twice() -> list[Handle]:
            submission = backend.render(plan)
            return list(
                await asyncio.gather(backend.submit(submission), backend.submit(submission))
            )

        first, second = asyncio.run(twice())
        assert first == second
        assert asyncio.run(backend.submit(backend.render(plan))) == first
        until(said(plan, b"up"))
        time.sleep(0.2)
        assert log_of(plan) == b"up\n"

    def test_secrets_reach_the_command_and_no_file_or_process_list(
        self, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MY_SOURCE", "canary-5up3r")
        script = "import os, time; print(len(os.environ['API_KEY']), flush=True); time.sleep(60)"
        plan = make_plan(script, secrets=(SecretRef("API_KEY", "MY_SOURCE"),))
        backend = backend_for(plan)
        submission = backend.render(plan)
        assert "canary" not in json.dumps(submission.to_json())
        assert "canary" not in repr(submission)
        asyncio.run(backend.submit(submission))
        until(said(plan, b"12\n"))
        for file in plan.run_dir.rglob("*"):
            assert b"canary" not in file.read_bytes()
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(FileNotFoundError, ProcessLookupError):  # others end while we look
                assert b"canary" not in entry.read_bytes()

    def test_the_plans_environment_wins_over_the_launchers(
        self, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLOR", "red")
        monkeypatch.setenv("SHAPE", "round")
        plan = make_plan(
            "import os; print(os.environ['COLOR'], os.environ['SHAPE'])", env={"COLOR": "blue"}
        )
        end_of(*start(plan))
        assert b"blue round\n" in log_of(plan)

    def test_setup_lines_come_first_and_a_failing_one_ends_the_run(
        self, make_plan: MakePlan
    ) -> None:
        script = "import os; print(os.environ['FLAVOR'])"
        lines = ["export FLAVOR='it'\\''s mint'"]
        plan = make_plan(script, profile_values={"setup_lines": lines})
        assert end_of(*start(plan)).state is RunState.SUCCEEDED
        assert b"it's mint\n" in log_of(plan)
        plan = make_plan(script, profile_values={"startup_commands": "exit 3"})
        assert end_of(*start(plan)).exit_code == 3

    def test_a_step_without_a_command_of_its_own_runs_its_module(self, make_plan: MakePlan) -> None:
        plan = make_plan(
            launch=Launch("python", "tunedeck.trainer", ("finetune",)),
            profile_values={"run_command": None},
        )
        argv = backend_for(plan).render(plan).argv
        config = str(plan.run_dir / "config.yaml")
        assert argv == (sys.executable, "-m", "tunedeck.trainer", "finetune", "--config", config)

    def test_several_processes_are_started_by_torchrun(self, make_plan: MakePlan) -> None:
        plan = make_plan(
            launch=Launch("torchrun", "tunedeck.trainer", ("finetune",), nproc_per_node=2),
            profile_values={"run_command": None},
        )
        argv = backend_for(plan).render(plan).argv
        assert argv[1:6] == (
            "-m",
            "tunedeck.trainer.torchrun",
            "--standalone",
            "--nproc-per-node",
            "2",
        )
        assert argv[6:8] == ("-m", "tunedeck.trainer")

    def test_modules_in_the_working_directory_are_not_imported(
        self, make_plan: MakePlan, tmp_path: Path
    ) -> None:
        (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
        plan = make_plan(
            launch=Launch("python", "json.tool"),
            profile_values={"run_command": None},
            selection={"cwd": str(tmp_path)},
        )
        end_of(*start(plan))
        assert b"wrong json" not in log_of(plan)


class TestLogs:
    def test_a_follower_gets_every_byte_and_ends_with_the_run(self, make_plan: MakePlan) -> None:
        plan = make_plan("""
            import sys, time
            for i in range(20):
                print("line", i, flush=True)
                time.sleep(0.01)
            sys.stdout.write("10%\\r20%\\rdone\\r\\nlast")
        """)
        entries = lines_of(*start(plan))
        assert b"".join(entry.line + b"\n" for entry in entries) == log_of(plan)
        assert entries[-2].line == b"last"

    def test_a_follower_can_start_from_any_cursor(self, make_plan: MakePlan) -> None:
        plan = make_plan("for i in range(5): print('line', i)")
        backend, handle = start(plan)
        entries = lines_of(backend, handle)
        for position, entry in enumerate(entries):
            assert lines_of(backend, handle, entry.cursor) == entries[position + 1 :]

    def test_without_follow_it_is_what_there_is_now(self, make_plan: MakePlan) -> None:
        plan = make_plan("import time; print('a\\nb\\nhalf', end='', flush=True); time.sleep(60)")
        backend, handle = start(plan)
        until(said(plan, b"half"))
        assert [e.line for e in lines_of(backend, handle, follow=False)] == [b"a", b"b"]


class TestPreflight:
    def findings(self, plan: Plan) -> dict[str | None, str]:
        found = asyncio.run(backend_for(plan).preflight(plan))
        assert all(finding.severity == "error" for finding in found)
        return {f.key: f"{f.message} {f.fix.words if f.fix else ''}" for f in found}

    def test_a_trainer_that_is_installed_is_nothing_to_speak_of(self, make_plan: MakePlan) -> None:
        if importlib.util.find_spec("torch") is None:
            pytest.skip("the extra 'train' is not installed")
        plan = make_plan(launch=Launch("python", "tunedeck.trainer"), profile_values={})
        assert self.findings(plan) == {}

    def test_a_trainer_that_is_not_installed_says_how_to_get_it(
        self, make_plan: MakePlan, tmp_path: Path
    ) -> None:
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True
        )
        plan = make_plan(
            launch=Launch("python", "tunedeck.trainer"),
            profile_values={"venv": str(tmp_path / "venv")},
        )
        (words,) = self.findings(plan).values()
        assert "torch" in words
        assert "pip install 'tunedeck[train]'" in words

    def test_an_interpreter_that_is_not_there(self, make_plan: MakePlan) -> None:
        plan = make_plan(
            launch=Launch("python", "tunedeck.trainer"), profile_values={"venv": "/nonexistent"}
        )
        assert "/nonexistent/bin/python" in self.findings(plan)["venv"]

    def test_more_nodes_or_gpus_than_there_are(self, make_plan: MakePlan) -> None:
        launch = Launch("command", "x", nodes=2, gpus_per_node=1000)
        assert set(self.findings(make_plan(launch=launch))) == {"nodes", "gpus_per_node"}


def test_the_supervisor_knows_its_own_pid(make_plan: MakePlan) -> None:
    plan = make_plan(SLEEPER)
    _, handle = start(plan)
    mark = ProcessMark.of(int(handle.job_id))
    assert mark is not None
    assert mark.to_json() == job_of(plan)["supervisor"]
    assert os.getsid(mark.pid) != os.getsid(0)


@pytest.mark.slow
class TestTorchrun:
    @pytest.fixture
    def plan(self, make_plan: MakePlan, tmp_path: Path) -> Plan:
        if importlib.util.find_spec("torch") is None:
            pytest.skip("the extra 'train' is not installed")
        script = tmp_path / "rank.py"
        script.write_text(
            "import os, signal, sys, time\n"
            "def save(*_):\n"
            "    open(os.environ['TUNEDECK_EXIT_FILE'], 'w').write('75')\n"
            "    sys.exit(75)\n"
            "signal.signal(signal.SIGTERM, save)\n"
            # In one piece: without a buffer, print's words mix with those of the other rank.
            "sys.stdout.write('rank {RANK} of {WORLD_SIZE}\\n'.format(**os.environ))\n"
            "time.sleep(60)\n"
        )
        launch = Launch("torchrun", str(script), nproc_per_node=2)
        return make_plan(launch=launch, profile_values={"run_command": None})

    def start_ranks(self, plan: Plan) -> tuple[LocalBackend, Handle]:
        backend, handle = start(plan)
        until(said(plan, b"rank 0 of 2"))
        until(said(plan, b"rank 1 of 2"))
        return backend, handle

    def test_a_saved_run_is_preempted_though_torchrun_says_1(self, plan: Plan) -> None:
        backend, handle = self.start_ranks(plan)
        os.kill(int(handle.job_id), signal.SIGTERM)
        status = end_of(backend, handle)
        assert (status.state, status.exit_code) == (RunState.PREEMPTED, 75)
        assert processes_of(plan.run_id, None) == []

    def test_killed_torchrun_leaves_no_rank_behind(self, plan: Plan) -> None:
        backend, handle = self.start_ranks(plan)
        os.kill(job_of(plan)["command"]["pid"], signal.SIGKILL)
        end_of(backend, handle)
        assert processes_of(plan.run_id, None) == []

    def test_cancelled_it_leaves_no_rank_behind(self, plan: Plan) -> None:
        backend, handle = self.start_ranks(plan)
        assert asyncio.run(backend.cancel(handle)).state is RunState.CANCELLED
        assert processes_of(plan.run_id, None) == []
