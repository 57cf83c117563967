"""The body of a job on Hugging Face, with secrets masked, and the script that it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...bundle import bundle
from ...errors import UsageError
from ...plan import Plan
from ...secrets import MASK
from ..cloud.start import Script, Start, clone, render_start, unpack
from ..layout import Layout, Upload
from .deliver import deliver
from .place import Storage, place_variable, storage_of, volumes_of
from .settings import (
    environment,
    namespace_of,
    output_repo_of,
    repository_of,
    stage_words,
    timeout_of,
)

RUN_LABEL, DIGEST_LABEL = "tunedeck-run", "tunedeck-digest"

_LABEL = re.compile(r"[^A-Za-z0-9_-]+")
_LONGEST_LABEL = 63


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
        body=_body(plan, script, env, timeout_s, volumes_of(plan, storage)),
        script=script,
        storage=storage,
        uploads=uploads,
    )


def label(text: str) -> str:
    """Text in the characters of a job's name, which the service also keeps as a tag."""
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
        "words": stage_words(plan, env),
        "timeout_s": timeout_s,
        "deliver": deliver(repo, plan.run_id) if repo else (),
    }
    return Start(**{**facts, **from_repository})


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
