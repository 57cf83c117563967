"""The body of a Run:ai workload, with secrets by reference, and where everything lies in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...env.models.dgxcloud import DGXCloudProfile
from ...env.rules.walltime import slurm_seconds
from ...errors import UsageError
from ...plan import Plan, SecretRef
from ..cloud.merge import merged
from ..cloud.mounted import Place
from ..cloud.profile import job_name, profile_as, required
from ..cloud.start import Script, render_start
from .client import DISTRIBUTED, TRAINING

FOLDER_KEYS = ("remote_job_dir", "pvc_nemo_run_dir")
START = "TUNEDECK_START"
"""Variable of the job that holds its script: `command` and `args` are one line each."""

RENDEZVOUS = (
    'export NODE_RANK="${RANK:-0}"',
    "rank=$NODE_RANK",
    "unset RANK WORLD_SIZE  # the operator counts pods; torchrun counts processes",
)
"""What the training operator tells each pod (MASTER_ADDR and MASTER_PORT stay), for torchrun."""

BEGINNING = re.compile(rb"tunedeck: log of node (\d+), begun (\S+)")
"""What the first line of each pod's log says: whose it is, and which of the pod's beginnings."""

# A copy of what the job says goes to the volume beside its files: that can be read where the
# cluster's log service cannot. The first process of a container must hand its signals on.
_WITH_COPY = """\
run_dir={run_dir}
mkdir -p "$run_dir"
pipe=$(mktemp -u) && mkfifo "$pipe" || exit 1
{{
  echo "tunedeck: log of node ${{RANK:-0}}, begun $(date +%s).$RANDOM"
  cat "$pipe"
}} | tee -a "$run_dir/log_${{RANK:-0}}.txt" &
copy=$!
bash -c "${start}" > "$pipe" 2>&1 &
step=$!
trap 'kill -TERM "$step" 2> /dev/null' TERM INT
while kill -0 "$step" 2> /dev/null; do wait "$step"; done
wait "$step"
code=$?
wait "$copy"
rm -f "$pipe"
exit "$code"
"""

_LONGEST_NAME = 34
"""What NVIDIA's own launcher (NeMo-Run) cuts names to: the service takes up to 35 characters."""
_LONGEST_SCRIPT = 120 << 10


@dataclass(frozen=True, slots=True)
class Workload:
    """Everything of a workload that a plan decides.

    Attributes:
        kind: `trainings` or `distributed`, as the route has it.
        body: what is sent. Project and cluster take their ids as it is sent.
        script: what it runs.
        place: where its files lie.
    """

    kind: str
    body: Mapping[str, Any]
    script: Script
    place: Place


def workload_of(plan: Plan) -> Workload:
    """The workload of a plan.

    Raises:
        UsageError: if the profile lacks what a workload must have.
    """
    profile = profile_of(plan.profile_values)
    several = plan.launch.nodes > 1
    if several and profile.distributed_framework != "PyTorch":
        raise UsageError(
            f"distributed_framework is '{profile.distributed_framework}'; runs of several nodes "
            "start with torchrun.",
            fix='Set distributed_framework = "PyTorch", or leave it out.',
        )
    place = Place.of(plan, profile.mounted(), FOLDER_KEYS)
    start = place.start(
        plan,
        timeout_s=slurm_seconds(profile.time) if profile.time else None,
        rendezvous=RENDEZVOUS if several else (),
    )
    script = render_start(plan, start)
    if len(script.text) > _LONGEST_SCRIPT:
        raise UsageError(
            f"The job's script has {len(script.text) >> 10} KiB; "
            f"{_LONGEST_SCRIPT >> 10} are the most.",
            fix="Put long shell text into a file of the image or the volume.",
        )
    kind = DISTRIBUTED if several else TRAINING
    return Workload(kind, _body(plan, profile, script, place), script, place)


def profile_of(values: Mapping[str, Any]) -> DGXCloudProfile:
    """The profile's values by their types. What it may not hold was found by its check."""
    return profile_as(DGXCloudProfile, values)


def secret_place(secret: SecretRef) -> dict[str, str]:
    """Where the service has a secret: the credential's name, and the key in it."""
    if secret.remote:
        name, _, key = secret.source.partition("/")
        return {"name": name, "key": key or secret.name}
    return {"name": f"tunedeck-{secret.name.lower().replace('_', '-')}", "key": secret.name}


def carrier_body(
    body: Mapping[str, Any], name: str, env: Mapping[str, str], script: str
) -> dict[str, Any]:
    """The body of a training that brings inputs: the run's own image and volumes, no GPU."""
    spec = body["spec"]
    kept = ("image", "storage", "imagePullSecrets", "nodePools")
    variables = {START: script, **env}
    return {
        "name": name,
        "projectId": body["projectId"],
        "clusterId": body["clusterId"],
        "spec": {
            **{key: spec[key] for key in kept if key in spec},
            "command": "bash -c",
            "args": shlex.quote(f'eval "${START}"'),
            "compute": {"gpuDevicesRequest": 0},
            "environmentVariables": [{"name": k, "value": v} for k, v in variables.items()],
            "backoffLimit": 1,
        },
    }


def _body(plan: Plan, profile: DGXCloudProfile, script: Script, place: Place) -> dict[str, Any]:
    wrapper = _WITH_COPY.format(run_dir=shlex.quote(place.layout.run_dir), start=START)
    spec: dict[str, Any] = {
        "command": "bash -c",
        "args": shlex.quote(wrapper),
        "image": required(profile, "container_image"),
        "compute": {"gpuDevicesRequest": plan.launch.gpus_per_node, "largeShmRequest": True},
        "storage": {"pvc": [_pvc(pvc) for pvc in profile.pvcs]},
        "environmentVariables": [
            {"name": START, "value": script.text},
            *({"name": name, "value": value} for name, value in plan.env.items()),
            *({"name": s.name, "secret": secret_place(s)} for s in plan.secrets),
            *place.variables(plan),
        ],
        "backoffLimit": profile.max_requeues or 0,
    }
    if profile.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in profile.image_pull_secrets]
    if profile.node_pools:
        spec["nodePools"] = list(profile.node_pools)
    if profile.priority_class:
        spec["priorityClass"] = profile.priority_class
    if profile.preemptibility:
        spec["preemptibility"] = profile.preemptibility
    body: dict[str, Any] = {
        "name": job_name(plan, _LONGEST_NAME),
        "projectId": f"<id of project {required(profile, 'project_name')}>",
        "clusterId": "<id of its cluster>",
    }
    if plan.launch.nodes > 1:
        # The master is one of the nodes, and runs what the workers run.
        spec |= {
            "distributedFramework": profile.distributed_framework,
            "numWorkers": plan.launch.nodes - 1,
        }
        body["masterSpecSameAsWorker"] = True
    return {**body, "spec": merged(spec, profile.custom_spec)}


def _pvc(pvc: Any) -> dict[str, Any]:
    """A volume as the API has it; what is not set is left to the service."""
    told: dict[str, Any] = pvc.model_dump(by_alias=True, exclude_none=True)
    return told
