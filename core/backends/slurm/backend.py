"""Slurm, behind an SSH login or on this machine."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ...findings import Finding
from ...keys import table_in
from ...plan import Plan
from ...ssh import Machine, open_machine
from ...states import Status
from ...submission import Submission, SubmissionFile
from ..base import Capabilities, Handle, LogLine
from .layout import job_root, layout_of, uses_ssh
from .options import LOG, array_tasks, job_name
from .script import CONFIG, RESUME_CONFIG, SCRIPT, render_script

if TYPE_CHECKING:
    from ..files import RemoteFile

_CHUNK = 4 << 20


class SlurmBackend:
    """Runs as batch jobs of a Slurm cluster."""

    name = "slurm"
    capabilities = Capabilities(asks_together=True)

    def __init__(self, profile_values: dict[str, Any]) -> None:
        self._values = profile_values
        self._on_upload: Callable[[str, int, int], None] = lambda *_: None

    @property
    def _machine(self) -> Machine:
        return open_machine(self._values, ssh=uses_ssh(self._values))

    async def preflight(self, plan: Plan) -> list[Finding]:
        """What the cluster itself says of a plan: limits, folders, packages, the start."""
        from .preflight import check_cluster

        return await check_cluster(self._machine, plan, self.render(plan))

    def render(self, plan: Plan) -> Submission:
        """The script and the files of a plan; what is uploaded beside them is in the payload."""
        layout = layout_of(plan)
        config = layout.config(plan)
        checkpoints = _checkpoint_folder(config, layout.run_dir)
        script = render_script(plan, layout, checkpoints=checkpoints)
        files = [
            SubmissionFile(f"{layout.run_dir}/{SCRIPT}", script.text),
            SubmissionFile.of_yaml(f"{layout.run_dir}/{CONFIG}", config),
            SubmissionFile.of_json(f"{layout.run_dir}/plan.json", plan.to_json()),
        ]
        if checkpoints:
            going_on = copy.deepcopy(config)
            going_on["checkpoint"]["restore_from"] = checkpoints
            files.append(SubmissionFile.of_yaml(f"{layout.run_dir}/{RESUME_CONFIG}", going_on))
        return Submission(
            run_id=plan.run_id,
            backend=self.name,
            argv=script.command,
            env=script.env,
            secrets=plan.secrets,
            files=tuple(files),
            script=script.text,
            payload={
                "host": self._values.get("host"),
                "job_name": job_name(plan),
                "tasks": array_tasks(self._values),
                "uploads": [upload.to_json() for upload in layout.uploads(plan)],
            },
            cwd=layout.run_dir,
        )

    async def submit(self, submission: Submission) -> Handle:
        """Send what is not there yet, and submit the script, once."""
        from .submit import submit

        assert submission.cwd is not None
        root = str(PurePosixPath(submission.cwd).parent)
        return await submit(self._machine, root, submission, self._on_upload)

    def tell_uploads(self, on_progress: Callable[[str, int, int], None]) -> None:
        """Have told, from now on, how far what a job needs is on its way to the cluster."""
        self._on_upload = on_progress

    async def find(self, run_id: str, run_dir: Path) -> Handle | None:
        """The job of a run, by what is in its folder over there or by its comment."""
        from .submit import find

        return await find(self._machine, f"{job_root(self._values, '')}/{run_id}", run_id)

    async def status(self, handle: Handle) -> Status:
        """By squeue, scontrol, sacct and the run's own last word."""
        from .watch import status_of

        return await status_of(self._machine, self._login, handle)

    @property
    def _login(self) -> str:
        keys = ("host", "port", "user", "proxy_jump")
        return "|".join(str(self._values.get(key)) for key in keys)

    def logs(self, handle: Handle, cursor: str | None, *, follow: bool) -> AsyncGenerator[LogLine]:
        """Lines of the job's log; the cursor is a byte offset."""
        from .logs import lines_of

        return lines_of(self.log_blocks(handle, cursor, follow=follow))

    def log_blocks(
        self, handle: Handle, cursor: str | None, *, follow: bool
    ) -> AsyncGenerator[LogLine]:
        """The same in blocks of lines."""
        from .logs import follow_log, read_log

        log = handle.data.get("log", LOG)
        path, offset = f"{handle.data['run_dir']}/{log}", int(cursor or 0)
        if follow:
            return follow_log(self._machine, path, offset, lambda: self.status(handle))
        return read_log(self._machine, path, offset)

    def of_node(self, handle: Handle, node: int) -> Handle:
        """The job with the log of another of its nodes."""
        log = f"node_{node}.txt" if node else LOG
        return Handle(handle.run_id, handle.job_id, {**handle.data, "log": log})

    async def cancel(self, handle: Handle) -> Status:
        """Scancel, and return once Slurm says that the job has ended.

        Raises:
            DeadlineError: if it goes on all the same.
        """
        from ..ending import stopped
        from .shell import run_slurm

        return await stopped(
            f"Job {handle.job_id}",
            lambda: self.status(handle),
            lambda: run_slurm(self._machine, f"scancel {handle.job_id}"),
            f"Slurm ends it when its node answers. See: scontrol show job {handle.job_id}",
        )

    async def inventory(self, profile_values: dict[str, Any]) -> dict[str, Any]:
        """Partitions with their limits and GPUs, and who waits for what."""
        from .inventory import inventory

        return await inventory(self._machine)

    async def files(self, handle: Handle) -> Sequence[RemoteFile]:
        """The files in the run's folder over there."""
        from .files import list_files

        return await list_files(self._machine, handle)

    async def fetch(
        self, handle: Handle, name: str, target: Path, offset: int, on_bytes: Callable[[int], None]
    ) -> None:
        """Bring the rest of a file home."""
        source = f"{handle.data['run_dir']}/{name}"
        with target.open("ab") as out:
            while data := await self._machine.read(source, offset, _CHUNK):
                offset += out.write(data)
                on_bytes(offset)

    async def adopt(self, job_id: str) -> tuple[Handle, dict[str, Any]]:
        """The handle and the plan of a job that another launcher submitted.

        Raises:
            NotFoundError: if there is no such job, or it is no run of ours.
        """
        from .files import plan_of_job

        return await plan_of_job(self._machine, job_root(self._values, ""), job_id)


def _checkpoint_folder(config: dict[str, Any], run_dir: str) -> str | None:
    """Where the run's checkpoints go over there; None for a step that makes none."""
    checkpoint = table_in(config, "checkpoint")
    if not checkpoint or not checkpoint.get("enabled", True):
        return None
    return str(checkpoint.get("checkpoint_dir") or f"{run_dir}/checkpoints")
