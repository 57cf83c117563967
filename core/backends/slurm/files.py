"""The files that a run has left on the cluster, and jobs that another launcher submitted."""

from __future__ import annotations

import json
import shlex
from typing import Any

from ...errors import NotFoundError
from ...ssh import Machine
from ..base import Handle
from ..files import RemoteFile
from .shell import refused
from .submit import JOB_ID

_GONE = 66
"""EX_NOINPUT of sysexits(3)."""


async def list_files(machine: Machine, handle: Handle) -> list[RemoteFile]:
    """The files below a run's folder, those behind links to checkpoints among them.

    Raises:
        NotFoundError: if the folder is gone.
        TunedeckError: if it cannot be read.
    """
    folder = shlex.quote(handle.data["run_dir"])
    done = await machine.run(
        f"[ -e {folder} ] || exit {_GONE}; cd {folder} && find -L . -type f -printf '%s %T@ %P\\0'"
    )
    if done.code == _GONE:
        raise NotFoundError(
            f"{handle.data['run_dir']} is not on {machine.name} any more.",
            fix="Someone or the site's clean-up has removed it; what was fetched is kept.",
        )
    if done.code:
        raise refused(machine, done, f"Listing {handle.data['run_dir']}")
    rows = [line.split(" ", 2) for line in done.out.split("\0") if line]
    files = [RemoteFile(name, int(size), written) for size, written, name in rows]
    return sorted(files, key=lambda file: file.name)


async def plan_of_job(machine: Machine, root: str, job_id: str) -> tuple[Handle, dict[str, Any]]:
    """The run that a job is: its handle, and the plan that lies in its folder.

    Each run notes its job in its folder, so that it is found also when Slurm has forgotten it.

    Raises:
        NotFoundError: if no run in `root` is that job.
    """
    done = await machine.run(
        f"cd {shlex.quote(root)} && plan=$(grep -lxF -e {shlex.quote(job_id)} -- */{JOB_ID} | "
        f'tail -n 1) && cat "${{plan%/*}}/plan.json"'
    )
    if done.code or not done.out:
        raise NotFoundError(
            f"No run in {root} on {machine.name} is job {job_id}.",
            fix="Check the job's id, and the profile's remote_job_dir. See: tunedeck queue PROFILE",
        )
    plan: dict[str, Any] = json.loads(done.out)
    return Handle(plan["run_id"], job_id, {"run_dir": f"{root}/{plan['run_id']}"}), plan
