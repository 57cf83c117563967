"""A profile that submits to DGX Cloud Lepton."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import EXECUTOR, BaseProfile, Item, Mounted, Positive, Text, Texts


class LeptonMount(Item):
    """One folder of the storage in the job's container."""

    path: str = Field(description="Folder on the storage.")
    mount_path: str = Field(description="Where it is seen in the container.")
    source: str | None = Field(
        None, alias="from", description="The storage: node-nfs:NAME or node-local."
    )


class LeptonProfile(BaseProfile):
    """Keys of the executor `lepton`. The workspace and its token come from the environment."""

    remote_paths: ClassVar[tuple[str, ...]] = (
        "workspace",
        "nemo_run_dir",
        "remote_job_dir",
        "code_src_dir",
    )

    executor: Literal["lepton"] = Field("lepton", description=EXECUTOR)
    node_group: str | None = Field(None, description="Dedicated node group, by name or id.")
    node_reservation: str | None = Field(None, description="Reservation within the node group.")
    resource_shape: str | None = Field(
        None, description="Shape of each node, such as gpu.8xh100-80gb or cpu.large."
    )
    nemo_run_dir: str | None = Field(
        None, description="Folder on the mounted storage for job files and logs."
    )
    code_src_dir: str | None = Field(
        None, description="Folder on the mounted storage that source code is put into."
    )
    shared_memory_size: Positive | None = Field(
        None, description="Shared memory of each node in MiB."
    )
    mounts: list[LeptonMount] = Field(
        default_factory=list,
        description="Storage in the container, each as {path, mount_path, from}.",
    )
    image_pull_secrets: Texts = Field(
        default_factory=list, description="Names of the workspace's registry credentials."
    )
    ray_version: Text | None = Field(None, description="Version of Ray for steps that use it.")
    pre_launch_commands: Texts = Field(
        default_factory=list, description="Shell commands run before startup_commands."
    )
    queue_priority: Text | None = Field(
        None,
        description="Priority class in the queue: low-1000 to high-9000, or short as mid or 5.",
    )
    can_be_preempted: bool | None = Field(
        None, description="Whether a job of higher priority may take the nodes."
    )
    can_preempt: bool | None = Field(
        None, description="Whether the job may take nodes from those of lower priority."
    )
    launched_from_cluster: bool = Field(
        False,
        description="Whether the machine that launches sees the mounts at the same paths, as a "
        "development pod does: it then writes code and inputs there itself.",
    )
    carrier_shape: str | None = Field(
        None,
        description="Shape of the small jobs that bring larger inputs to the storage; "
        "cpu.small where this is not set.",
    )
    custom_spec: dict[str, Any] = Field(
        default_factory=dict, description="Further fields of the job's spec, as the API has them."
    )

    @classmethod
    def required(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """What the service cannot choose by itself."""
        folder = (
            () if values.get("remote_job_dir") or values.get("workspace") else ("nemo_run_dir",)
        )
        return ("container_image", "resource_shape", "node_group", *folder)

    def mounted(self) -> list[Mounted]:
        """`mounts`."""
        return [
            Mounted(f"mounts.{n}", f"{mount.source or ''}:{mount.path}", mount.mount_path)
            for n, mount in enumerate(self.mounts)
        ]
