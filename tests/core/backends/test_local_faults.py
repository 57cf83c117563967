"""What goes wrong on this machine, and what a run on it is made to stop."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.backends.local_runs import (
    LIMIT_S,
    SLEEPER,
    MakePlan,
    backend_for,
    end_of,
    job_of,
    log_of,
    said,
    start,
    status_of,
    until,
)
from tunedeck.core.errors import ReachError, TunedeckError
from tunedeck.core.process import processes_of
from tunedeck.core.states import RunState


class TestFaults:
    def test_the_trainer_killed(self, make_plan: MakePlan) -> None:
        plan = make_plan(SLEEPER)
        backend, handle = start(plan)
        until(said(plan, b"up"))
        os.kill(job_of(plan)["command"]["pid"], signal.SIGKILL)
        status = end_of(backend, handle)
        assert (status.state, status.exit_code) == (RunState.FAILED, 137)
        assert "signal 9" in status.reason
        assert "memory" in status.reason
        assert log_of(plan).endswith(b"tunedeck: exit=137\n")

    def test_the_supervisor_killed(self, make_plan: MakePlan) -> None:
        plan = make_plan(SLEEPER)
        backend, handle = start(plan)
        until(said(plan, b"up"))
        os.kill(int(handle.job_id), signal.SIGKILL)
        status = end_of(backend, handle)
        assert status.state is RunState.LOST
        assert "supervisor was killed" in status.reason
        assert processes_of(plan.run_id, None) == []

    def test_the_supervisor_killed_and_an_orphan_that_ignores_sigterm(
        self, make_plan: MakePlan
    ) -> None:
        script = "import signal; signal.signal(15, signal.SIG_IGN)\n" + SLEEPER
        plan = make_plan(script, profile_values={"grace_period": 0.5})
        backend, handle = start(plan)
        until(said(plan, b"up"))
        os.kill(int(handle.job_id), signal.SIGKILL)
        until(lambda: status_of(backend, handle).state is RunState.STOPPING)
        assert end_of(backend, handle).state is RunState.LOST
        assert processes_of(plan.run_id, None) == []

    def test_the_launcher_killed(self, make_plan: MakePlan, tmp_path: Path) -> None:
        go_on = tmp_path / "go_on"
        plan = make_plan(f"""
            import pathlib, time
            print("up", flush=True)
            while not pathlib.Path({str(go_on)!r}).exists():
                time.sleep(0.02)
            print("done")
        """)
        launcher = tmp_path / "launcher.py"
        launcher.write_text(
            "import asyncio, sys, pickle\n"
            "from tunedeck.core.backends.local.backend import LocalBackend\n"
            "submission = pickle.load(open(sys.argv[1], 'rb'))\n"
            "handle = asyncio.run(LocalBackend({}).submit(submission))\n"
            "print(handle.job_id, flush=True)\n"
            "import time; time.sleep(60)\n"
        )
        import pickle

        pickled = tmp_path / "submission"
        pickled.write_bytes(pickle.dumps(backend_for(plan).render(plan)))
        with subprocess.Popen(
            [sys.executable, str(launcher), str(pickled)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            job_id = process.stdout.readline().strip().decode()
            process.kill()
        backend = backend_for(plan)
        handle = asyncio.run(backend.find(plan.run_id, plan.run_dir))
        assert handle is not None
        assert handle.job_id == job_id
        assert status_of(backend, handle).state is RunState.RUNNING
        go_on.touch()
        assert end_of(backend, handle).state is RunState.SUCCEEDED
        assert log_of(plan) == b"up\ndone\ntunedeck: exit=0\n"

    def test_the_machine_restarted(self, make_plan: MakePlan) -> None:
        plan = make_plan(SLEEPER)
        backend, handle = start(plan)
        until(said(plan, b"up"))
        job = job_of(plan)
        job["supervisor"]["boot"] = "another-boot"
        (plan.run_dir / "job.json").write_text(json.dumps(job))
        status = status_of(backend, handle)
        assert (status.state, status.reason) == (RunState.LOST, "the machine restarted")

    def test_another_machine_that_shares_the_home_folder_does_not_judge(
        self, make_plan: MakePlan
    ) -> None:
        plan = make_plan(SLEEPER)
        backend, handle = start(plan)
        until(said(plan, b"up"))
        job = job_of(plan)
        job["supervisor"] |= {"boot": "another-boot", "host": "login2"}
        (plan.run_dir / "job.json").write_text(json.dumps(job))
        with pytest.raises(ReachError, match="login2"):
            status_of(backend, handle)

    def test_the_supervisors_pid_given_to_another_process(self, make_plan: MakePlan) -> None:
        plan = make_plan(SLEEPER)
        backend, handle = start(plan)
        until(said(plan, b"up"))
        os.kill(int(handle.job_id), signal.SIGKILL)
        job = job_of(plan)
        job["supervisor"]["pid"] = os.getpid()
        (plan.run_dir / "job.json").write_text(json.dumps(job))
        assert end_of(backend, handle).state is RunState.LOST

    def test_the_run_folder_removed(self, make_plan: MakePlan) -> None:
        import shutil

        plan = make_plan()
        backend, handle = start(plan)
        end_of(backend, handle)
        shutil.rmtree(plan.run_dir)
        status = status_of(backend, handle)
        assert status.state is RunState.LOST
        assert str(plan.run_dir) in status.reason

    def test_a_log_that_cannot_grow_is_the_commands_failure_and_told(
        self, make_plan: MakePlan
    ) -> None:
        script = """
            import os, sys
            try:
                for _ in range(10_000):
                    os.write(1, b"x" * 999 + b"\\n")
            except OSError as error:
                sys.exit(error.errno)
        """
        plan = make_plan(script)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
        try:
            backend, handle = start(plan)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        status = end_of(backend, handle)
        assert status.state is RunState.FAILED
        assert len(log_of(plan)) == 100_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


class TestFullDisk:
    def test_a_disk_that_fills_up_during_the_run(
        self, make_plan: MakePlan, small_disk: Path
    ) -> None:
        script = """
            import os, sys
            try:
                while True:
                    os.write(1, b"x" * 999 + b"\\n")
            except OSError as error:
                sys.exit(error.errno)
        """
        plan = make_plan(script, run_dir=small_disk / "run")
        status = end_of(*start(plan))
        assert (status.state, status.exit_code) == (RunState.FAILED, 28)
        assert status.ended_at is not None

    def test_a_disk_that_is_full_from_the_start(
        self, make_plan: MakePlan, small_disk: Path
    ) -> None:
        (small_disk / "ballast").write_bytes(b"\0" * (1 << 20))
        plan = make_plan(run_dir=small_disk / "run")
        backend = backend_for(plan)
        with pytest.raises((TunedeckError, OSError), match=r"(?i)no space"):
            asyncio.run(backend.submit(backend.render(plan)))


class TestCancel:
    def test_a_run_that_ends_on_sigterm(self, make_plan: MakePlan) -> None:
        plan = make_plan(SLEEPER)
        backend, handle = start(plan)
        until(said(plan, b"up"))
        status = asyncio.run(backend.cancel(handle))
        assert (status.state, status.exit_code) == (RunState.CANCELLED, 143)
        assert processes_of(plan.run_id, None) == []
        assert log_of(plan).endswith(b"tunedeck: exit=143\n")

    def test_a_run_that_saves_and_exits_with_75_is_cancelled_all_the_same(
        self, make_plan: MakePlan
    ) -> None:
        script = "import signal, sys; signal.signal(15, lambda *_: sys.exit(75))\n" + SLEEPER
        plan = make_plan(script)
        backend, handle = start(plan)
        until(said(plan, b"up"))
        status = asyncio.run(backend.cancel(handle))
        assert (status.state, status.exit_code) == (RunState.CANCELLED, 75)

    def test_a_run_that_ignores_sigterm_is_killed_after_the_grace_period(
        self, make_plan: MakePlan
    ) -> None:
        script = "import signal; signal.signal(15, signal.SIG_IGN)\n" + SLEEPER
        plan = make_plan(script, profile_values={"grace_period": 0.5})
        backend, handle = start(plan)
        until(said(plan, b"up"))
        status = asyncio.run(backend.cancel(handle))
        assert (status.state, status.exit_code) == (RunState.CANCELLED, 137)

    def test_ranks_in_sessions_of_their_own_are_ended_too(self, make_plan: MakePlan) -> None:
        script = """
            import signal, subprocess, sys, time
            code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
            subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
            print("up", flush=True)
            time.sleep(60)
        """
        plan = make_plan(script, profile_values={"grace_period": 0.5})
        backend, handle = start(plan)
        until(said(plan, b"up"))
        assert asyncio.run(backend.cancel(handle)).state is RunState.CANCELLED
        assert processes_of(plan.run_id, None) == []

    def test_a_run_whose_supervisor_does_not_answer(
        self, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tunedeck.core.backends.local.backend._ANSWER_MARGIN_S", 0.2)
        plan = make_plan(SLEEPER, profile_values={"grace_period": 0.2})
        backend, handle = start(plan)
        until(said(plan, b"up"))
        os.kill(int(handle.job_id), signal.SIGSTOP)
        assert asyncio.run(backend.cancel(handle)).state is RunState.CANCELLED
        assert status_of(backend, handle).state is RunState.CANCELLED
        assert processes_of(plan.run_id, None) == []

    def test_a_run_that_has_ended_keeps_its_end(self, make_plan: MakePlan) -> None:
        backend, handle = start(make_plan())
        end_of(backend, handle)
        assert asyncio.run(backend.cancel(handle)).state is RunState.SUCCEEDED

    def test_a_run_is_stopping_meanwhile(self, make_plan: MakePlan) -> None:
        script = "import signal; signal.signal(15, signal.SIG_IGN)\n" + SLEEPER
        plan = make_plan(script, profile_values={"grace_period": LIMIT_S})
        backend, handle = start(plan)
        until(said(plan, b"up"))

        async def watched() -> RunState:
            cancelling = asyncio.create_task(backend.cancel(handle))
            while (await backend.status(handle)).state is not RunState.STOPPING:
                assert not cancelling.done()
                await asyncio.sleep(0.05)
            os.kill(job_of(plan)["command"]["pid"], signal.SIGKILL)
            return (await cancelling).state

        assert asyncio.run(watched()) is RunState.CANCELLED

    def test_sigterm_to_the_supervisor_is_a_preemption_if_the_run_saves(
        self, make_plan: MakePlan
    ) -> None:
        script = "import signal, sys; signal.signal(15, lambda *_: sys.exit(75))\n" + SLEEPER
        plan = make_plan(script)
        backend, handle = start(plan)
        until(said(plan, b"up"))
        os.kill(int(handle.job_id), signal.SIGTERM)
        assert end_of(backend, handle).state is RunState.PREEMPTED
