"""This machine: a run is a supervised process group that outlives its launcher."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from ...command import command_words, script_words
from ...errors import ReachError, TunedeckError
from ...files import write_atomic
from ...findings import Finding
from ...plan import Plan
from ...process import RUN_ID_VARIABLE, ProcessMark, processes_of, signal_all
from ...states import RunState, Status
from ...submission import Submission, SubmissionFile
from ..base import Capabilities, Handle, LogLine
from ..tail import tail
from .checks import check_machine
from .folder import how_it_ended, read_json, why_lost
from .supervise import EXIT_FILE_VARIABLE, JOB, LOG, SENTINEL

DEFAULT_GRACE_S = 30.0
"""Seconds between SIGTERM and SIGKILL, as torchrun gives its workers."""

_START_LIMIT_S = 60.0
_ANSWER_MARGIN_S = 15.0
_LOOK_S = 0.1


class LocalBackend:
    """Runs on this machine. Of a profile's values it takes `grace_period` and `venv`."""

    name = "local"
    capabilities = Capabilities(remote=False, poll_s=0.25)

    def __init__(self, profile_values: dict[str, Any]) -> None:
        self._grace_s = float(profile_values.get("grace_period") or DEFAULT_GRACE_S)

    async def preflight(self, plan: Plan) -> list[Finding]:
        """Whether this machine has the nodes, GPUs, interpreter and packages the plan asks for."""
        return await asyncio.to_thread(check_machine, plan, interpreter(plan.profile_values))

    def render(self, plan: Plan) -> Submission:
        """The argv, environment and files of a plan. Nothing is decided at submission."""
        config = plan.run_dir / "config.yaml"
        argv = command_words(
            plan.launch,
            plan.profile_values,
            python=interpreter(plan.profile_values),
            config=str(config),
            torchrun=("--standalone", "--nproc-per-node", str(plan.launch.nproc_per_node)),
        )
        env = {
            **plan.env,
            RUN_ID_VARIABLE: plan.run_id,
            "TUNEDECK_RUN_DIR": str(plan.run_dir),
            EXIT_FILE_VARIABLE: str(plan.run_dir / "exit_code"),
            "PYTHONUNBUFFERED": "1",
        }
        if "-m" in script_words(plan.launch):
            # The folder one launches from may hold a `datasets.py`: it is not what is imported.
            env["PYTHONSAFEPATH"] = "1"
        return Submission(
            run_id=plan.run_id,
            backend=self.name,
            argv=argv,
            env=env,
            secrets=plan.secrets,
            files=(
                SubmissionFile.of_yaml(str(config), plan.config),
                SubmissionFile.of_json(str(plan.run_dir / "plan.json"), plan.to_json()),
            ),
            cwd=str(plan.selection.get("cwd") or plan.run_dir),
        )

    async def submit(self, submission: Submission) -> Handle:
        """Write the files and start a supervisor that runs `argv` and outlives this process.

        Raises:
            TunedeckError: if the run's folder cannot be written or the supervisor does not start.
        """
        folder = Path(submission.files[0].path).parent  # config.yaml lies in the run's folder
        if existing := await self.find(submission.run_id, folder):
            return existing
        for file in submission.files:
            write_atomic(Path(file.path), file.content, mode=file.mode)
        spec = {
            "run_id": submission.run_id,
            "run_dir": str(folder),
            "argv": submission.argv,
            "env": {**os.environ, **submission.env, **submission.secret_values()},
            "cwd": submission.cwd,
            "grace_s": self._grace_s,
        }
        reply = await asyncio.to_thread(_start_supervisor, json.dumps(spec))
        if "error" in reply:
            # Another process may have submitted the same run in this very moment.
            if existing := await self.find(submission.run_id, folder):
                return existing
            raise TunedeckError(
                f"The run could not be started: {reply['error']}",
                fix="Check that the folder can be written and its disk has room.",
            )
        return _handle(submission.run_id, folder, int(reply["pid"]))

    async def find(self, run_id: str, run_dir: Path) -> Handle | None:
        """The supervised job of a run, if its folder says that there is one."""
        job = read_json(run_dir / JOB)
        return None if job is None else _handle(run_id, run_dir, job["supervisor"]["pid"])

    async def status(self, handle: Handle) -> Status:
        """What the sentinel says; without one, whether the supervisor is still there.

        Raises:
            ReachError: if it is another machine's, seen through a home folder that both share.
        """
        folder = Path(handle.data["run_dir"])
        if sentinel := read_json(folder / SENTINEL):
            return how_it_ended(sentinel)
        job = read_json(folder / JOB)
        if job is None:
            return Status(RunState.LOST, reason=f"its folder {folder} is gone")
        started = job.get("started_at")
        supervisor = ProcessMark.from_json(job["supervisor"])
        if supervisor.alive:
            if job.get("stopping"):
                return Status(RunState.STOPPING, "stopping", started_at=started)
            state = RunState.RUNNING if started else RunState.STARTING
            return Status(state, str(state), started_at=started)
        if sentinel := read_json(folder / SENTINEL):  # it ended between the two looks
            return how_it_ended(sentinel)
        if supervisor.elsewhere:
            raise ReachError(
                f"Run {handle.run_id} is a local one of the machine {supervisor.host}.",
                fix="Look at it from there.",
            )
        if not supervisor.same_boot:
            return Status(RunState.LOST, reason="the machine restarted", started_at=started)
        return self._abandoned(handle, folder, job)

    def _abandoned(self, handle: Handle, folder: Path, job: dict[str, Any]) -> Status:
        """No supervisor and no sentinel: end what is left of the run, over as many looks as needed.

        The exit code of an orphan cannot be learnt, so letting it run on would help no one.
        """
        started = job.get("started_at")
        command = ProcessMark.from_json(job["command"]) if job.get("command") else None
        group = command.pid if command and command.alive else None
        left = processes_of(handle.run_id, group)
        if not left:
            return Status(RunState.LOST, reason=why_lost(folder), started_at=started)
        if "orphans_since" not in job:
            signal_all(left, signal.SIGTERM)
            with contextlib.suppress(OSError):
                write_atomic(folder / JOB, json.dumps({**job, "orphans_since": time.time()}))
        elif time.time() - job["orphans_since"] > self._grace_s:
            signal_all(left, signal.SIGKILL)
        reason = "the supervisor was killed; what it left behind is being stopped"
        return Status(RunState.STOPPING, "orphaned", reason, started_at=started)

    def logs(self, handle: Handle, cursor: str | None, *, follow: bool) -> AsyncGenerator[LogLine]:
        """Lines of the run's log; the cursor is a byte offset."""

        async def ended() -> bool:
            return (await self.status(handle)).state.terminal

        return tail(Path(handle.data["run_dir"]) / LOG, int(cursor or 0), ended, follow=follow)

    async def cancel(self, handle: Handle) -> Status:
        """SIGTERM, then SIGKILL after the grace period; returns once nothing of the run is left."""
        status = await self.status(handle)
        if status.state.terminal:
            return status
        folder = Path(handle.data["run_dir"])
        job = read_json(folder / JOB) or {}
        supervisor = ProcessMark.from_json(job["supervisor"])
        if supervisor.alive:
            signal_all([supervisor.pid], signal.SIGUSR1)
        deadline = time.monotonic() + self._grace_s + _ANSWER_MARGIN_S
        while time.monotonic() < deadline:
            status = await self.status(handle)
            if status.state.terminal:
                return status
            await asyncio.sleep(_LOOK_S)
        return await self._cancel_by_force(handle, folder, supervisor)

    async def _cancel_by_force(
        self, handle: Handle, folder: Path, supervisor: ProcessMark
    ) -> Status:
        """End a run whose supervisor is stopped or stuck, and leave the word it would have left."""
        if supervisor.alive:
            signal_all([supervisor.pid], signal.SIGKILL)
        while left := processes_of(handle.run_id, None):
            signal_all(left, signal.SIGKILL)
            await asyncio.sleep(_LOOK_S)
        word = {"exit_code": 128 + signal.SIGKILL, "cancelled": True, "ended_at": time.time()}
        with contextlib.suppress(OSError):
            write_atomic(folder / SENTINEL, json.dumps(word))
        return how_it_ended(word)

    async def inventory(self, profile_values: dict[str, Any]) -> dict[str, Any]:
        """This machine's processors, memory and GPUs."""
        from ...hardware import local_gpus, memory_bytes

        return {
            "cpus": os.cpu_count(),
            "memory": memory_bytes(),
            "gpus": [{"name": gpu.name, "memory": gpu.memory} for gpu in local_gpus()],
        }


def interpreter(profile_values: Any) -> str:
    """The Python that runs the step: that of the profile's `venv`, or this one."""
    if venv := profile_values.get("venv"):
        return str(Path(venv).expanduser().absolute() / "bin" / "python")
    return sys.executable


def _start_supervisor(spec: str) -> dict[str, Any]:
    """Start a supervisor, tell it what to run, and return its answer."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tunedeck.core.backends.local.supervise"],
            input=spec,
            capture_output=True,
            text=True,
            timeout=_START_LIMIT_S,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"its supervisor did not answer in {_START_LIMIT_S:.0f} s"}
    if not done.stdout:
        words = done.stderr.strip().splitlines() or ["the supervisor ended without a word"]
        return {"error": words[-1]}
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


def _handle(run_id: str, folder: Path, pid: int) -> Handle:
    return Handle(run_id, str(pid), {"run_dir": str(folder)})
