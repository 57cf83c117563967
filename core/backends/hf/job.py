"""The body of a job on Hugging Face, with secrets masked, and where everything lies in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...bundle import bundle
from ...env.models.hf_jobs import HFVolume
from ...env.rules.walltime import hf_seconds
from ...errors import UsageError
from ...plan import Plan
from ...submission import MASK
from ..cloud.start import Script, Start, clone, render_start, unpack
from ..slurm.layout import Layout, Upload

RUN_LABEL, DIGEST_LABEL = "tunedeck-run", "tunedeck-digest"

PLACE = "TUNEDECK_BUCKET"
"""Variable of the job that tells where its files are: `bucket:folder in it:seen at`."""

_DEFAULT_MOUNT = "/workspace"
_DEFAULT_BUCKET = "tunedeck"
_LABEL = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_LABEL = 63
_STAGES = {
    "pretrain": ("BASE_ARGS", "PRETRAIN_ARGS"),
    "peft": ("SFT_ARGS", "PEFT_ARGS"),
    "sft": ("SFT_ARGS",),
    "rl": ("RL_ARGS",),
    "eval": ("EVAL_ARGS",),
}
"""Category of a step → the variables whose words are appended to its command."""

_STAGE_ARGS = frozenset(name for names in _STAGES.values() for name in names)
_SETTINGS = ("RUN", "NPROC_PER_NODE", "REPO_URL", "GIT_REF")
"""Variables that steer a job where they have a value, and mean nothing where they have none."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The bucket that code and inputs come by and outputs leave by.

    Attributes:
        bucket: `namespace/name`.
        mount: where the job sees it.
        root: the folder for runs, as the job sees it.
    """

    bucket: str
    mount: str
    root: str

    def inside(self, path: str) -> str:
        """The path in the bucket of one in the job."""
        return path.removeprefix(self.mount).strip("/")


@dataclass(frozen=True, slots=True)
class Job:
    """Everything of a job that a plan decides.

    Attributes:
        namespace: whose it is.
        body: what is sent, with each secret's value masked.
        script: what its command runs.
        storage: its bucket; None for one that needs none.
        uploads: what must be in the bucket before it starts.
    """

    namespace: str
    body: Mapping[str, Any]
    script: Script
    storage: Storage | None
    uploads: tuple[Upload, ...]


def job_of(plan: Plan) -> Job:
    """The job of a plan.

    Raises:
        UsageError: if the profile lacks what a job must have.
    """
    values = plan.profile_values
    if plan.launch.nodes > 1:
        raise UsageError(
            f"A job on Hugging Face is one machine; the plan asks for {plan.launch.nodes}.",
            fix="Set run.env.nodes=1 and choose a flavor with more GPUs, such as h200x8.",
        )
    namespace = namespace_of(values)
    storage = storage_of(plan)
    layout = Layout.under(storage.root, plan) if storage else None
    uploads = tuple(_uploads(plan, layout)) if layout else ()
    timeout_s = timeout_of(values)
    env = environment(plan) | (place_variable(storage, plan.run_id) if storage else {})
    script = render_start(plan, _start(plan, layout, env, timeout_s))
    return Job(
        namespace=namespace,
        body=_body(plan, script, env, timeout_s, _volumes(plan, storage)),
        script=script,
        storage=storage,
        uploads=uploads,
    )


def namespace_of(values: Mapping[str, Any]) -> str:
    """Whose the job is.

    Raises:
        UsageError: if the profile does not say.
    """
    if namespace := values.get("namespace"):
        return str(namespace)
    raise UsageError(
        "The profile does not say whose the job is.",
        fix='Set namespace to your user name or an organization (namespace = "ada"). '
        "See yours: hf auth whoami",
    )


def timeout_of(values: Mapping[str, Any]) -> int:
    """The time limit in seconds. The service's own of 30 minutes would end most runs unsaid.

    Raises:
        UsageError: if there is none, or it cannot be read.
    """
    text = str(values.get("timeout") or values.get("time") or "").strip()
    seconds = hf_seconds(text)
    if seconds:
        return seconds
    said = f"'{text}' is no time limit" if text else "The profile sets no time limit"
    raise UsageError(
        f"{said}; without one the service ends the job after 30 minutes.",
        fix='Set timeout to a number with s, m, h or d: timeout = "4h"',
    )


def repository_of(plan: Plan) -> tuple[str, str] | None:
    """The git repository and ref that the code comes from; None where it travels as a bundle.

    Raises:
        UsageError: if the ref could be taken for an option of git's.
    """
    url, ref = (str(plan.env.get(name) or "") for name in ("REPO_URL", "GIT_REF"))
    if ref.startswith("-"):
        raise UsageError(f"GIT_REF '{ref}' is no ref.", fix="Give a branch, a tag or a commit.")
    return (url, ref) if url else None


def storage_of(plan: Plan) -> Storage | None:
    """The profile's bucket that may be written, or one of its namespace's own.

    None where the code is cloned, nothing travels, and the profile names no bucket.
    """
    values = plan.profile_values
    workspace = str(values.get("workspace") or "").rstrip("/")
    wanted = str(values.get("remote_job_dir") or workspace).rstrip("/")
    buckets = [v for v in _named(values) if v.type == "bucket" and not v.read_only]
    fitting = [v for v in buckets if _below(wanted, v.mount_path)]
    for volume in (*fitting, *buckets):
        mount = volume.mount_path.rstrip("/")
        return Storage(volume.source, mount, wanted if _below(wanted, mount) else mount)
    if repository_of(plan) and not plan.inputs:
        return None
    mount = workspace or _DEFAULT_MOUNT
    root = wanted if _below(wanted, mount) else mount
    return Storage(f"{namespace_of(values)}/{_DEFAULT_BUCKET}", mount, root)


def output_repo_of(values: Mapping[str, Any]) -> str | None:
    """The Hub repository that outputs are uploaded to, if the profile names one."""
    return str(values["output_repo"]) if values.get("output_repo") else None


def environment(plan: Plan) -> dict[str, str]:
    """The job's environment variables, without secrets."""
    env = {k: v for k, v in plan.env.items() if v or not (k in _SETTINGS or k in _STAGE_ARGS)}
    if env.get("RUN"):
        env["TUNEDECK_RUN_NAME"] = env["RUN"]
    return env


def place_variable(storage: Storage, run_id: str) -> dict[str, str]:
    """What a job carries so that its files can be found by it alone."""
    run_dir = f"{storage.root}/{run_id}"
    return {PLACE: f"{storage.bucket}:{storage.inside(run_dir)}:{run_dir}"}


def label(text: str) -> str:
    """Text in the characters of a label."""
    return _LABEL.sub("-", text).strip("-")[:_LONGEST_LABEL]


def _start(plan: Plan, layout: Layout | None, env: Mapping[str, str], timeout_s: int) -> Start:
    repository = repository_of(plan)
    from_repository: dict[str, Any] = {}
    if repository is not None:
        from_repository = {
            "code": clone(*repository),
            "path": ("$scratch/repo/src", "$scratch/repo"),
            "provide": "$scratch/repo/core/backends/provide.py",
            "cwd": "$scratch/repo",
        }
    repo = output_repo_of(plan.profile_values)
    facts: dict[str, Any] = {
        "run_dir": "$scratch/run",
        "keep_dir": layout.run_dir if layout else "",
        "code": unpack(f"{layout.code}.tar.gz") if layout else (),
        "config": layout.config(plan) if layout else dict(plan.config),
        "words": _stage_words(plan, env),
        "timeout_s": timeout_s,
        "deliver": _deliver(repo, plan.run_id) if repo else (),
    }
    return Start(**{**facts, **from_repository})


def _stage_words(plan: Plan, env: Mapping[str, str]) -> list[str]:
    """The words that variables such as SFT_ARGS append to the step's command.

    Raises:
        UsageError: if a quote in them is not closed.
    """
    words = []
    for name in _STAGES.get(plan.step.partition("/")[0], ()):
        try:
            words += shlex.split(env.get(name, ""))
        except ValueError as error:
            text = f"{name} cannot be read as words: {error}."
            raise UsageError(text, fix=f"Close the quotes in {name}.") from error
    return words


def _deliver(repo: str, run_id: str) -> list[str]:
    """Lines that upload what the run made. A failure of it fails the job: it would be lost."""
    return [
        f"if ! python3 - \"$run_dir\" {shlex.quote(repo)} {run_id} << 'TUNEDECK_UPLOAD'",
        *_UPLOAD.splitlines(),
        "TUNEDECK_UPLOAD",
        "then",
        f'  echo "tunedeck: error: what the run made could not be uploaded to {repo}"',
        '  if [ "$code" = 0 ]; then code=1; fi',
        "fi",
    ]


_UPLOAD = """\
import sys
from huggingface_hub import HfApi
folder, repo, run_id = sys.argv[1:]
unfinished = ["*.in_progress/*", "*.replaced/*", "*.removed/*"]
try:
    api = HfApi()
    api.create_repo(repo, private=True, exist_ok=True)
    api.upload_folder(
        repo_id=repo, folder_path=folder, path_in_repo=run_id,
        commit_message=f"Results of {run_id}",
        ignore_patterns=[*unfinished, "checkpoints/latest/*", "checkpoints/best/*"],
    )
except Exception as error:
    sys.exit(f"tunedeck: error: {' '.join(str(error).split())}")
print(f"tunedeck: what the run made is in {repo}, below {run_id}")"""


def _uploads(plan: Plan, layout: Layout) -> list[Upload]:
    """What must be there first. The code is one archive, which the job unpacks on its own disk."""
    code, *inputs = layout.uploads(plan)
    if repository_of(plan):
        return inputs
    archive = Upload(code.kind, code.source, f"{code.target}.tar.gz", bundle().digest)
    return [archive, *inputs]


def _body(
    plan: Plan,
    script: Script,
    env: Mapping[str, str],
    timeout_s: int,
    volumes: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """As the service's API has it."""
    values = plan.profile_values
    own = {str(k): str(v) for k, v in (values.get("labels") or {}).items()}
    labels = {
        "name": label(plan.name),
        **own,
        RUN_LABEL: plan.run_id,
        DIGEST_LABEL: plan.digest.removeprefix("sha256:")[:_LONGEST_LABEL],
    }
    body: dict[str, Any] = {
        "dockerImage": _required(values, "container_image"),
        "command": ["bash", "-c", script.text],
        "arguments": [],
        "environment": dict(env),
        "flavor": _required(values, "flavor"),
        "timeoutSeconds": timeout_s,
        "labels": labels,
    }
    if sent := [secret.name for secret in plan.secrets if not secret.remote]:
        body["secrets"] = dict.fromkeys(sent, MASK)
    if values.get("attempts"):
        body["attempts"] = int(values["attempts"])
    if volumes:
        body["volumes"] = list(volumes)
    return body


def _required(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key) or values.get("container" if key == "container_image" else key)
    if value:
        return str(value)
    raise UsageError(f"The profile sets no {key}.", fix=f'Add it to the profile: {key} = "…"')


def _volumes(plan: Plan, storage: Storage | None) -> list[dict[str, Any]]:
    named = _named(plan.profile_values)
    if storage and all(v.source != storage.bucket or v.type != "bucket" for v in named):
        own = {"type": "bucket", "source": storage.bucket, "mount_path": storage.mount}
        named.append(HFVolume.model_validate(own))
    return [
        {
            "type": volume.type,
            "source": volume.source,
            "mountPath": volume.mount_path,
            "readOnly": volume.read_only or volume.type != "bucket",
        }
        for volume in named
    ]


def _named(values: Mapping[str, Any]) -> list[HFVolume]:
    return [HFVolume.model_validate(dict(volume)) for volume in values.get("volumes") or ()]


def _below(path: str, folder: str) -> bool:
    return bool(path) and f"{path}/".startswith(f"{folder.rstrip('/')}/")
