"""Where everything of a job lies: the bucket that code comes by and results leave by, mounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...env.models.hf_jobs import HFVolume
from ...plan import Plan
from .settings import namespace_of, repository_of

PLACE = "TUNEDECK_BUCKET"
"""Variable of the job that tells where its files are: `bucket:folder in it:seen at`."""

_DEFAULT_MOUNT = "/workspace"
_DEFAULT_BUCKET = "tunedeck"


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


def place_variable(storage: Storage, run_id: str) -> dict[str, str]:
    """What a job carries so that its files can be found by it alone."""
    run_dir = f"{storage.root}/{run_id}"
    return {PLACE: f"{storage.bucket}:{storage.inside(run_dir)}:{run_dir}"}


def volumes_of(plan: Plan, storage: Storage | None) -> list[dict[str, Any]]:
    """The volumes of a job as the service's API has them; its bucket is the last if not named."""
    named = _named(plan.profile_values)
    if storage and not any(_is(volume, storage) for volume in named):
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


def _is(volume: HFVolume, storage: Storage) -> bool:
    found = (volume.type, volume.source, volume.mount_path.rstrip("/"), volume.read_only)
    return found == ("bucket", storage.bucket, storage.mount, False)


def _below(path: str, folder: str) -> bool:
    return bool(path) and f"{path}/".startswith(f"{folder.rstrip('/')}/")
