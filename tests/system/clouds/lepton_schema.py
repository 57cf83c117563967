"""What a Lepton workspace has, and what it accepts of a job: fields, types and names."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from tests.system.clouds.server import Refused

WORKSPACE, TOKEN = "nemo-lab", "Lp9" + "xQ4vT7" * 5
GROUP_ID, GROUP = "h100-pool-7f3a", "h100-pool"
SHAPES = {"cpu.small": 0, "cpu.large": 0, "gpu.h100-80gb": 1, "gpu.2xh100-80gb": 2,
          "gpu.8xh100-80gb": 8}  # fmt: skip
STORAGE = "node-nfs:lustre"

JOB = {"metadata": dict, "spec": dict, "status": dict}
_METADATA = {"id": str, "name": str, "labels": dict, "visibility": str, "owner": str}
_SPEC: dict[str, type] = {
    "resource_shape": str, "affinity": dict, "container": dict, "shared_memory_size": int,
    "completions": int, "parallelism": int, "max_failure_retry": int,
    "max_job_failure_retry": int, "envs": list, "mounts": list, "storage_attachments": list,
    "image_pull_secrets": list, "ttl_seconds_after_finished": int,
    "intra_job_communication": bool, "user_security_context": dict, "metrics": dict, "log": dict,
    "queue_config": dict, "stopped": bool, "reservation_config": dict, "time_schedule": dict,
    "segment_config": dict,
}  # fmt: skip
_INNER: dict[str, dict[str, type]] = {
    "affinity": {"allowed_providers": list, "allowed_dedicated_node_groups": list,
                 "allowed_nodes_in_node_group": list},
    "container": {"image": str, "command": list, "ports": list},
    "log": {"save_termination_logs": bool, "enable_collection": bool},
    "queue_config": {"priority_class": str, "can_be_preempted": bool, "can_preempt": bool},
    "reservation_config": {"reservation_id": str, "allow_burst_to_other_reservations": bool},
}  # fmt: skip
_ENV = {"name": str, "value": str, "value_from": dict}
_MOUNT = {"path": str, "from": str, "mount_path": str, "mount_options": dict}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,35}")
_ENV_NAME = re.compile(r"[A-Za-z._-][A-Za-z0-9._-]*")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_PRIORITY = re.compile(r"(?:low|mid|high)-\d000")
_RESERVED_MOUNTS = frozenset([
    "/", "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/media", "/opt", "/proc", "/run",
    "/sbin", "/srv", "/sys", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/var",
    "/sys/fs/cgroup", "/sys/kernel/security", "/proc/sys", "/proc/bus",
])  # fmt: skip
_RESERVED_VARIABLES = frozenset([
    "LEPTON_WORKSPACE_ID", "LEPTON_DEPLOYMENT_NAME", "LEPTON_JOB_NAME",
    "LEPTON_RESOURCE_ACCELERATOR_TYPE", "LEPTON_WORKSPACE_ORIGIN_URL",
])  # fmt: skip


def check_job(body: Any, secrets: Collection[str]) -> None:
    """Refuse what the workspace refuses of a new job; `secrets` are the names of those it keeps."""
    check(body, JOB)
    metadata, spec = body.get("metadata", {}), body.get("spec", {})
    check(metadata, _METADATA)
    check(spec, _SPEC)
    name = metadata.get("id") or metadata.get("name") or ""
    if not _NAME.fullmatch(name) or name.endswith(("-", "by-lepton")):
        raise Refused(400, f"invalid job name {name!r}")
    for label, value in (metadata.get("labels") or {}).items():
        if not _LABEL.fullmatch(label) or not (value == "" or _LABEL.fullmatch(value)):
            raise Refused(400, f"invalid label {label}={value}")
    for table, fields in _INNER.items():
        check(spec.get(table) or {}, fields)
    if spec.get("resource_shape") not in SHAPES:
        raise Refused(400, f"resource shape {spec.get('resource_shape')} not found")
    for group in (spec.get("affinity") or {}).get("allowed_dedicated_node_groups") or ():
        if group != GROUP_ID:
            raise Refused(400, f"dedicated node group {group} not found")
    container = spec.get("container") or {}
    if not container.get("image") or not all(isinstance(w, str) for w in container["command"]):
        raise Refused(400, "container image and command are required")
    if int(spec.get("completions", 1)) < 1 or int(spec.get("parallelism", 1)) < 1:
        raise Refused(400, "completions and parallelism must be positive")
    priority = (spec.get("queue_config") or {}).get("priority_class")
    if priority and not _PRIORITY.fullmatch(priority):
        raise Refused(400, f"invalid priority class {priority}")
    for env in spec.get("envs") or ():
        _check_env(env, secrets)
    for mount in spec.get("mounts") or ():
        _check_mount(mount)


def _check_env(env: dict[str, Any], secrets: Collection[str]) -> None:
    check(env, _ENV)
    if not _ENV_NAME.fullmatch(env["name"]) or env["name"] in _RESERVED_VARIABLES:
        raise Refused(400, f"invalid environment variable name {env['name']}")
    if reference := env.get("value_from"):
        check(reference, {"secret_name_ref": str})
        if reference["secret_name_ref"] not in secrets:
            raise Refused(400, f"secret {reference['secret_name_ref']} not found")
    elif len(env.get("value", "")) > 128 << 10:
        raise Refused(400, "environment variable too long")


def _check_mount(mount: dict[str, Any]) -> None:
    check(mount, _MOUNT)
    if not mount.get("from"):
        raise Refused(400, "mount.from is required")
    if mount["from"] not in (STORAGE, "node-local"):
        raise Refused(400, f"storage {mount['from']} not found")
    path = "/" + re.sub(r"/+", "/", mount["mount_path"]).strip("/")
    if path in _RESERVED_MOUNTS:
        raise Refused(400, f"mount path {path} is reserved")


def check(table: Any, fields: dict[str, Any]) -> None:
    """Refuse unknown fields and wrong types."""
    if not isinstance(table, dict):
        raise Refused(400, "json: cannot unmarshal")
    for name, value in table.items():
        if name not in fields:
            raise Refused(400, f'json: unknown field "{name}"')
        kind = fields[name]
        wrong = isinstance(value, bool) and kind is not bool
        if value is not None and (wrong or not isinstance(value, kind)):
            raise Refused(400, f"json: cannot unmarshal {value!r} into field {name}")
