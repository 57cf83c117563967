"""Sending a submission: what is missing over there, then the run's files, then one sbatch.

Everything is written beside its place and renamed into it, so that a connection that breaks leaves
no half of anything; and each part can be done again, so that one that breaks costs no second job.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

from ...bundle import bundle
from ...errors import ReachError, TunedeckError, UsageError
from ...inputs import as_path, content_digest
from ...ssh import Machine
from ...submission import Submission
from ..base import Handle
from ..layout import Upload
from .options import LOG, comment_of, line_without_overrides
from .refusals import sbatch_error
from .script import SCRIPT, SECRETS, SENTINEL
from .shell import AWAY, refused, run_slurm

JOB_ID = "job_id"

OnBytes = Callable[[str, int, int], None]
"""Told the name of what is sent, the bytes of all that are across, and of all that is sent."""

_PAUSES_S = (0.5, 1, 2, 4, 8, 16)
_SBATCH_FAILED = 20


async def submit(machine: Machine, root: str, submission: Submission, on_bytes: OnBytes) -> Handle:
    """Send a submission and return where its job is. A lost connection is tried again.

    Raises:
        ReachError: if the machine stays out of reach.
        UsageError: if Slurm refuses the job, or an input has changed since it was planned.
        TunedeckError: if something cannot be written over there.
    """
    incoming = f"{root}/.tunedeck/incoming/{submission.run_id}-{secrets.token_hex(4)}"
    for pause_s in (*_PAUSES_S, None):
        try:
            return await _attempt(machine, root, incoming, submission, on_bytes)
        except ReachError:
            if pause_s is None:
                raise
            await asyncio.sleep(pause_s)
    raise AssertionError


async def find(machine: Machine, run_dir: str, run_id: str) -> Handle | None:
    """The job of a run, by what it left in its folder or by its comment; None if there is none.

    Raises:
        TunedeckError: if that cannot be told.
    """
    done = await run_slurm(machine, f"cd {shlex.quote(run_dir)} || exit 0\n{_known_job(run_id)}")
    if done.code:
        raise refused(machine, done, f"Looking for the job of {run_id}")
    return _handle(run_id, run_dir, done.out) if done.out.strip() else None


async def _attempt(
    machine: Machine, root: str, incoming: str, submission: Submission, on_bytes: OnBytes
) -> Handle:
    run_dir = f"{root}/{submission.run_id}"
    payload = submission.payload or {}
    uploads = [Upload.from_json(item) for item in payload["uploads"]]
    there = await _look(machine, run_dir, incoming, uploads)
    missing = [upload for index, upload in enumerate(uploads) if str(index) not in there]
    if "run" not in there:
        try:
            await _send(machine, incoming, missing, submission, on_bytes)
        except TunedeckError:
            with suppress(TunedeckError):  # secrets may be in it; a later attempt removes it too
                await machine.run(f"rm -rf {shlex.quote(incoming)}")
            raise
    tasks = payload.get("tasks") or []
    script = _put_in_place(run_dir, incoming, missing, submission.run_id, tasks)
    script = f"{line_without_overrides(submission.script or '')}\n{script}"
    done = await run_slurm(machine, script)
    if done.code == _SBATCH_FAILED:
        raise sbatch_error(done.err, machine.name)
    if done.code or not done.out.strip():
        raise refused(machine, done, f"Putting the run's files into {run_dir}")
    return _handle(submission.run_id, run_dir, done.out)


async def _look(
    machine: Machine, run_dir: str, incoming: str, uploads: Sequence[Upload]
) -> set[str]:
    """What is there already, `run` for the run itself; makes the folder for what is not.

    What attempts have left that were cut off goes: this one's own, this run's from hours ago (a
    younger one may be another process's that submits the same run now), and those of other days.
    """
    drafts, own = PurePosixPath(incoming).parent, shlex.quote(incoming)
    old = f"-name '{PurePosixPath(run_dir).name}-*' -mmin +120 -o -mtime +2"
    lines = [
        f"rm -rf {own}",
        f"find {shlex.quote(str(drafts))} -mindepth 1 -maxdepth 1 '(' {old} ')' "
        "-exec rm -rf {} + 2> /dev/null",
        f"if [ -e {shlex.quote(run_dir)} ]; then echo run; fi",
    ]
    for index, upload in enumerate(uploads):
        lines.append(f"if [ -e {shlex.quote(upload.target)} ]; then echo {index}; fi")
    lines.append(f"mkdir -p {own}/run")
    done = await run_slurm(machine, "\n".join(lines))
    if done.code:
        raise refused(machine, done, f"Making a folder in {PurePosixPath(run_dir).parent}")
    return set(done.out.split())


async def _send(
    machine: Machine,
    incoming: str,
    missing: Sequence[Upload],
    submission: Submission,
    on_bytes: OnBytes,
) -> None:
    files = {
        f"{incoming}/run/{PurePosixPath(file.path).name}": (file.content.encode(), file.mode)
        for file in submission.files
    }
    if text := _secrets_file(submission):
        files[f"{incoming}/run/{SECRETS}"] = (text.encode(), 0o600)
    await machine.write(files)
    sources = [
        bundle().archive() if upload.kind == "code" else Path(upload.source) for upload in missing
    ]
    sizes = [
        source.stat().st_size if upload.size is None else upload.size
        for source, upload in zip(sources, missing, strict=True)
    ]
    whole = sum(sizes)
    for index, (source, upload) in enumerate(zip(sources, missing, strict=True)):
        if upload.kind != "code" and content_digest(source)[0] != upload.digest:
            raise UsageError(
                f"{source} has changed since the run was planned.", fix="Start it again."
            )
        name = "Tunedeck's code" if upload.kind == "code" else source.name
        told = partial(_tell, on_bytes, name, whole, sum(sizes[:index]))
        told(0)
        with as_path(source) as path:
            await machine.send(path, f"{incoming}/{index}", told)
        told(sizes[index])


def _tell(on_bytes: OnBytes, name: str, whole: int, before: int, sent: int) -> None:
    on_bytes(name, min(before + sent, whole), whole)


def _secrets_file(submission: Submission) -> str:
    """Shell lines with the values."""
    found = submission.secret_values()
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in found.items())


def _put_in_place(
    run_dir: str, incoming: str, missing: Sequence[Upload], run_id: str, tasks: Sequence[int]
) -> str:
    """Rename everything into its place, and submit unless there is a job already."""
    lines = [f"incoming={shlex.quote(incoming)} run_dir={shlex.quote(run_dir)}",
             "trap 'rm -rf \"$incoming\"' EXIT"]  # fmt: skip
    for index, upload in enumerate(missing):
        draft, target = f'"$incoming"/{index}', shlex.quote(upload.target)
        lines.append(f"mkdir -p {shlex.quote(str(PurePosixPath(upload.target).parent))} || exit 1")
        if upload.kind == "code":
            lines += [
                f'mkdir "$incoming"/code && tar -xzf {draft} -C "$incoming"/code || exit 1',
                f'mv -T "$incoming"/code {target} 2> /dev/null || [ -e {target} ] || exit 1',
            ]
        else:
            lines.append(f"[ -e {target} ] || mv -T {draft} {target} || exit 1")
    folders = " ".join(f"task_{number}" for number in tasks)
    # Slurm makes no folder for a log. That of the first task stands for the run's.
    task_logs = f"mkdir -p {folders} && ln -sfn task_{tasks[0]}/{LOG} {LOG}\n" if tasks else ""
    submit = _SUBMIT.replace("@known@\n", _known_job(run_id)).replace("@tasks@\n", task_logs)
    return "\n".join([*lines, submit])


_AWAY = shlex.join(f"-e{words}" for words in AWAY)

_SUBMIT = f"""\
if [ ! -e "$run_dir" ]; then mv -T "$incoming"/run "$run_dir" || exit 1; fi
cd "$run_dir" || exit 1
@tasks@
touch {LOG} || exit 1
exec 9> .lock && flock -w 120 9 2> /dev/null  # where the file system has locks
if ! mkdir .submitting 2> /dev/null; then
  # Another connection, perhaps one that broke, has begun to submit: its answer is ours.
  for _ in 1 2 3 4 5 6 7 8 9 10; do [ -s {JOB_ID} ] && break; sleep 1; done
fi
@known@
unset SLURM_TIME_FORMAT  # sbatch hands its environment on to the job
if ! sbatch --parsable {SCRIPT} 9>&- > .answer 2> .said; then
  cat .said >&2
  # A controller that does not answer in time may have taken the job: it is looked for again then.
  if ! grep -qF {_AWAY} .said; then cd / && rm -rf "$run_dir"; fi
  exit {_SBATCH_FAILED}
fi
# Sites wrap sbatch in scripts that talk as well; with several clusters it says ID;CLUSTER.
sed -n 's/^\\([0-9][0-9]*\\)\\(;.*\\)*$/\\1/p' .answer | tail -n 1 > .{JOB_ID}
if [ -s .{JOB_ID} ]; then
  mv .{JOB_ID} {JOB_ID}
else
@known@
  echo "sbatch answered '$(cat .answer)', which is no job id; see: tunedeck queue PROFILE" >&2
  exit 1
fi
rm -f .said .answer
cat {JOB_ID}
# Of runs that never became a job, and of jobs that were killed and whose end no launcher has heard.
for left in ../*/{SECRETS}; do
  other=${{left%/*}}
  if [ ! -s "$other/{JOB_ID}" ]; then find "$left" -mtime +0 -delete; continue; fi
  [ -e "$other/{SENTINEL}" ] || continue
  grep -q "^$(cat "$other/{JOB_ID}")|" .jobs || rm -f "$left"
done
rm -f .jobs
"""


def _known_job(run_id: str) -> str:
    """Print the job of a run and exit, if there is one; else go on."""
    return f"""\
if [ -s {JOB_ID} ]; then cat {JOB_ID}; exit 0; fi
squeue -h -u "$(id -un)" --states=all -o '%F|%k' > .jobs || exit 1
found=$(grep -wF {shlex.quote(comment_of(run_id))} .jobs | tail -n 1 | cut -d '|' -f 1)
if [ -n "$found" ]; then rm -f .jobs; echo "$found" | tee {JOB_ID}; exit 0; fi
"""


def _handle(run_id: str, run_dir: str, answer: str) -> Handle:
    """From what was noted of sbatch's answer."""
    return Handle(run_id, answer.strip(), {"run_dir": run_dir})
