"""The body of a Lepton job, with secrets by reference, and where everything lies in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...env.models.lepton import LeptonProfile
from ...env.rules.walltime import slurm_seconds
from ...errors import UsageError
from ...plan import Plan
from ..cloud.merge import merged
from ..cloud.mounted import Place
from ..cloud.profile import job_name, profile_as, required
from ..cloud.start import Script, render_start

RUN_LABEL, DIGEST_LABEL = "tunedeck-run", "tunedeck-digest"
FOLDER_KEYS = ("remote_job_dir", "nemo_run_dir")
CARRIER_SHAPE = "cpu.small"
BASH = "/bin/bash"

RENDEZVOUS = (
    'export MASTER_ADDR="${LEPTON_JOB_WORKER_PREFIX}-0.${LEPTON_SUBDOMAIN}" MASTER_PORT=29400',
    'export NODE_RANK="${LEPTON_JOB_WORKER_INDEX}" NNODES="${LEPTON_JOB_TOTAL_WORKERS}"',
    "rank=$NODE_RANK",
)
"""What Lepton tells each worker, as torchrun wants it; its own script would be downloaded."""

PRIORITIES = {
    f"{band}-{level}": f"{band}-{level}000"
    for band, levels in (("low", "123"), ("mid", "456"), ("high", "789"))
    for level in levels
}
"""The priority classes, by their short names."""

_PRIORITY = "mid"
"""What NVIDIA's client asks for where a job says only who may preempt whom."""

_LONGEST_NAME = 36
_LONGEST_LABEL = 63
_RESERVED = frozenset({
    "LEPTON_WORKSPACE_ID", "LEPTON_DEPLOYMENT_NAME", "LEPTON_JOB_NAME",
    "LEPTON_RESOURCE_ACCELERATOR_TYPE", "LEPTON_WORKSPACE_ORIGIN_URL",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """Everything of a job that a plan decides.

    Attributes:
        body: what is sent. The node group stands in it as the profile names it; its id takes that
            place as it is sent.
        script: what its command runs.
        place: where its files lie.
    """

    body: Mapping[str, Any]
    script: Script
    place: Place


def job_of(plan: Plan) -> Job:
    """The job of a plan.

    Raises:
        UsageError: if the profile lacks what a job must have.
    """
    profile = profile_of(plan.profile_values)
    place = Place.of(plan, profile.mounted(), FOLDER_KEYS)
    several = plan.launch.nodes > 1
    start = place.start(
        plan,
        timeout_s=slurm_seconds(profile.time) if profile.time else None,
        rendezvous=RENDEZVOUS if several else (),
    )
    script = render_start(plan, start)
    return Job(_body(plan, profile, script, place), script, place)


def profile_of(values: Mapping[str, Any]) -> LeptonProfile:
    """The profile's values by their types. What it may not hold was found by its check."""
    return profile_as(LeptonProfile, values)


def carrier_body(job: Mapping[str, Any], shape: str, name: str, env: Mapping[str, str],
                 script: str) -> dict[str, Any]:  # fmt: skip
    """The body of a job that brings inputs: the run's own image, mounts and place, no GPU."""
    spec = job["spec"]
    kept = ("mounts", "image_pull_secrets", "affinity", "queue_config")
    return {
        "metadata": {"id": name},
        "spec": {
            **{key: spec[key] for key in kept if key in spec},
            "resource_shape": shape,
            "container": {"image": spec["container"]["image"], "command": [BASH, "-c", script]},
            "completions": 1,
            "parallelism": 1,
            "max_failure_retry": 1,
            "envs": [{"name": key, "value": value} for key, value in env.items()],
        },
    }


def _body(plan: Plan, profile: LeptonProfile, script: Script, place: Place) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "resource_shape": required(profile, "resource_shape"),
        "affinity": {"allowed_dedicated_node_groups": [required(profile, "node_group")]},
        "container": {
            "image": required(profile, "container_image"),
            "command": [BASH, "-c", script.text],
        },
        "completions": plan.launch.nodes,
        "parallelism": plan.launch.nodes,
        # A replica alone cannot go on where the others wait for it: the job is tried as a whole.
        "max_failure_retry": 0,
        "max_job_failure_retry": profile.max_requeues or 0,
        "envs": [*_environment(plan), *place.variables(plan)],
        "mounts": [
            {"path": mount.path, "from": _storage(mount), "mount_path": mount.mount_path}
            for mount in profile.mounts
        ],
        "log": {"enable_collection": True},
    }
    if profile.shared_memory_size:
        spec["shared_memory_size"] = profile.shared_memory_size
    if profile.image_pull_secrets:
        spec["image_pull_secrets"] = list(profile.image_pull_secrets)
    if plan.launch.nodes > 1:
        spec["intra_job_communication"] = True
    if profile.node_reservation:
        spec["reservation_config"] = {"reservation_id": profile.node_reservation}
    queue = {
        key: value
        for key in ("can_be_preempted", "can_preempt")
        if (value := getattr(profile, key)) is not None
    }
    if queue or profile.queue_priority:
        wanted = profile.queue_priority or _PRIORITY
        spec["queue_config"] = {"priority_class": priority_class(wanted) or wanted, **queue}
    labels = {
        RUN_LABEL: plan.run_id,
        DIGEST_LABEL: plan.digest.removeprefix("sha256:")[:_LONGEST_LABEL],
    }
    metadata = {"id": job_name(plan, _LONGEST_NAME), "labels": labels}
    return {"metadata": metadata, "spec": merged(spec, profile.custom_spec)}


def priority_class(word: str) -> str | None:
    """The class that a word means: `mid-5000`, `mid-5`, `5`; a band alone, `mid` or `m`, its least.

    None for what is no class.
    """
    for short, whole in PRIORITIES.items():
        band, level = short.split("-")
        if word.lower() in (whole, short, level, band, band[0]):
            return whole
    return None


def _environment(plan: Plan) -> list[dict[str, Any]]:
    """Variables, and secrets as references to those that the workspace keeps."""
    for name in (*plan.env, *(secret.name for secret in plan.secrets)):
        if name in _RESERVED:
            raise UsageError(
                f"Lepton keeps the variable {name} for itself.", fix="Take it out of env_vars."
            )
    references = [
        {"name": s.name, "value_from": {"secret_name_ref": s.source if s.remote else s.name}}
        for s in plan.secrets
    ]
    return [*({"name": name, "value": value} for name, value in plan.env.items()), *references]


def _storage(mount: Any) -> str:
    if mount.source:
        return str(mount.source)
    raise UsageError(
        f"The mount at {mount.mount_path} does not say which storage it is on.",
        fix='Add from = "node-nfs:NAME" (or node-local) to it.',
    )
