"""What a Run:ai control plane accepts: fields, types and names, by its OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.system.clouds.server import Refused

CLIENT, SECRET = "tunedeck", "Rn8" + "kW3pZ5" * 5
PROJECT = "nlp"
PROJECT_ID, CLUSTER_ID = 17, "71f69d83-ba66-4822-adf5-55ce55efd210"
CLAIM, POOLS = "nlp-workspace", ("default", "h100")

FIELDS: dict[str, dict[str, Any]] = {
    "request": {"name": str, "useGivenNameAsPrefix": bool, "projectId": str, "clusterId": str,
                "templateId": str, "spec": dict},
    "distributed": {"masterSpecSameAsWorker": bool, "masterSpec": dict},
    "spec": {
        "annotations": list, "args": str, "autoDeletionTimeAfterCompletionSeconds": int,
        "backoffLimit": int, "category": str, "command": str, "completions": int, "compute": dict,
        "createHomeDir": bool, "environmentVariables": list, "exposedUrls": list, "image": str,
        "imagePullPolicy": str, "imagePullSecrets": list, "labels": list, "nodePools": list,
        "nodeAffinityRequired": dict, "nodeType": str, "parallelism": int, "podAffinity": dict,
        "ports": list, "preemptibility": str, "priorityClass": str, "probes": dict,
        "relatedUrls": list, "restartPolicy": str, "security": dict, "stdin": bool,
        "storage": dict, "terminateAfterPreemption": bool, "terminationGracePeriodSeconds": int,
        "tolerations": list, "tty": bool, "workingDir": str,
    },
    "distributed spec": {"cleanPodPolicy": str, "distributedFramework": str, "numWorkers": int,
                         "maxReplicas": int, "minReplicas": int, "slotsPerWorker": int,
                         "mpiLauncherCreationPolicy": str, "sshAuthMountPath": str},
    "compute": {"cpuCoreLimit": (int, float), "cpuCoreRequest": (int, float),
                "cpuMemoryLimit": str, "cpuMemoryRequest": str, "extendedResources": list,
                "gpuDevicesRequest": int, "gpuMemoryLimit": str, "gpuMemoryRequest": str,
                "gpuPortionLimit": (int, float), "gpuPortionRequest": (int, float),
                "gpuRequestType": str, "largeShmRequest": bool},
    "storage": {"configMapVolume": list, "dataVolume": list, "emptyDirVolume": list, "git": list,
                "hostPath": list, "nfs": list, "pvc": list, "s3": list, "secretVolume": list},
    "pvc": {"name": str, "path": str, "existingPvc": bool, "claimName": str, "readOnly": bool,
            "ephemeral": bool, "claimInfo": dict, "dataSharing": bool, "exclude": bool},
    "variable": {"name": str, "value": str, "secret": dict, "configMap": dict,
                 "podFieldRef": dict, "userCredential": dict, "exclude": bool,
                 "description": str},
    "secret": {"name": str, "key": str},
    "pull secret": {"name": str, "userCredential": bool, "exclude": bool},
    "meta": {"name": str, "description": str, "scope": str, "clusterId": str,
             "departmentId": str, "projectId": int, "autoDelete": bool,
             "workloadSupportedTypes": dict, "private": bool},
    "pair": {"key": str, "value": str},
}  # fmt: skip
_REQUIRED = ("name", "projectId", "clusterId", "spec")
_FRAMEWORKS = ("MPI", "PyTorch", "TF", "XGBoost", "JAX")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?")


def check_workload(
    kind: str, body: Any, secret_value: Callable[[dict[str, str]], str | None]
) -> None:
    """Refuse what the control plane refuses of a new workload."""
    several = kind == "distributed"
    check(body, {**FIELDS["request"], **(FIELDS["distributed"] if several else {})})
    if missing := [name for name in _REQUIRED if not body.get(name)]:
        raise Refused(400, f"{missing[0]} is required")
    if not _NAME.fullmatch(body["name"]):
        raise Refused(400, f"name {body['name']} is not a DNS-1123 label")
    if (body["projectId"], body["clusterId"]) != (str(PROJECT_ID), CLUSTER_ID):
        raise Refused(403, "no permission for this project or cluster")
    spec = body["spec"]
    check(spec, {**FIELDS["spec"], **(FIELDS["distributed spec"] if several else {})})
    if several and spec.get("distributedFramework") not in _FRAMEWORKS:
        raise Refused(400, "distributedFramework is invalid")
    if several and not spec.get("numWorkers", 0) >= 1:
        raise Refused(400, "numWorkers must be at least 1")
    if not spec.get("image"):
        raise Refused(400, "image is required")
    check(spec.get("compute") or {}, FIELDS["compute"])
    check(spec.get("storage") or {}, FIELDS["storage"])
    if spec.get("preemptibility") not in (None, "preemptible", "non-preemptible"):
        raise Refused(400, "preemptibility is invalid")
    for pool in spec.get("nodePools") or ():
        if pool not in POOLS:
            raise Refused(400, f"node pool {pool} does not exist")
    for row in spec.get("imagePullSecrets") or ():
        check(row, FIELDS["pull secret"])
    for pvc in (spec.get("storage") or {}).get("pvc") or ():
        check(pvc, FIELDS["pvc"])
        if pvc.get("existingPvc") and pvc.get("claimName") != CLAIM:
            raise Refused(400, f"pvc {pvc.get('claimName')} not found")
        if not str(pvc.get("path", "")).startswith("/"):
            raise Refused(400, "path must be absolute")
    for variable in spec.get("environmentVariables") or ():
        _check_variable(variable, secret_value)


def _check_variable(
    variable: dict[str, Any], secret_value: Callable[[dict[str, str]], str | None]
) -> None:
    check(variable, FIELDS["variable"])
    if (variable.get("value") is None) == (variable.get("secret") is None):
        raise Refused(400, f"exactly one source is needed for {variable.get('name')}")
    if len(variable.get("value") or "") > 128 << 10:
        raise Refused(400, "argument list too long")
    if secret := variable.get("secret"):
        check(secret, FIELDS["secret"])
        if secret_value(secret) is None:
            raise Refused(400, f"secret {secret['name']} not found")


def check(table: Any, fields: dict[str, Any]) -> None:
    """Refuse unknown fields and wrong types."""
    if not isinstance(table, dict):
        raise Refused(400, "an object is expected")
    for name, value in table.items():
        if name not in fields:
            raise Refused(400, f"additional property {name} is not allowed")
        kind = fields[name]
        wrong = isinstance(value, bool) and kind is not bool
        if value is not None and (wrong or not isinstance(value, kind)):
            raise Refused(400, f"{name} has the wrong type")


def iso(moment: float | None) -> str | None:
    """A moment (Unix seconds) as the service writes it."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat()
