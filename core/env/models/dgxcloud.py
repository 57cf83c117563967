"""A profile that submits to DGX Cloud Run:ai."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from .base import EXECUTOR, BaseProfile, Item, Mounted, Texts, spelled


class Pvc(Item):
    """One persistent volume claim in the job's container."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str | None = Field(None, description="Name of the data source.")
    path: str = Field(description="Where it is seen in the container.")
    existing_pvc: bool = Field(True, alias="existingPvc", description="Whether it exists already.")
    claim_name: str | None = Field(
        None, alias="claimName", description="The Kubernetes PersistentVolumeClaim."
    )
    read_only: bool = Field(False, alias="readOnly", description="Whether it may not be written.")


class DGXCloudProfile(BaseProfile):
    """Keys of the executor `dgxcloud`."""

    remote_paths: ClassVar[tuple[str, ...]] = (
        "workspace",
        "pvc_nemo_run_dir",
        "remote_job_dir",
        "code_src_dir",
    )

    executor: Literal["dgxcloud"] = Field("dgxcloud", description=EXECUTOR)
    base_url: str | None = Field(
        None, description="Address of the control plane's API, such as https://HOST/api/v1."
    )
    kube_apiserver_url: str | None = Field(
        None, description="Address of the cluster's Kubernetes API."
    )
    client_id: str | None = Field(
        None, validation_alias=spelled("client_id"), description="Client id of the application."
    )
    client_secret: str | None = Field(
        None,
        validation_alias=spelled("client_secret"),
        description='Its secret, by reference: "${oc.env:DGXCLOUD_CLIENT_SECRET}".',
    )
    project_name: str | None = Field(None, description="Project that the job runs in.")
    department: str | None = Field(None, description="Department of the project.")
    pvc_nemo_run_dir: str | None = Field(
        None, description="Folder on a mounted volume for job files and logs."
    )
    code_src_dir: str | None = Field(
        None, description="Folder on a mounted volume that source code is put into."
    )
    pvcs: list[Pvc] = Field(
        default_factory=list,
        description="Volumes in the container, each as {name, path, existingPvc, claimName}.",
    )
    distributed_framework: str = Field(
        "PyTorch", description="Framework of runs of more than one node."
    )
    image_pull_secrets: Texts = Field(
        default_factory=list, description="Names of the project's registry credentials."
    )
    node_pools: Texts = Field(
        default_factory=list, description="Node pools to run in, in order of preference."
    )
    priority_class: str | None = Field(None, description="Priority class of the workload.")
    preemptibility: Literal["preemptible", "non-preemptible"] | None = Field(
        None, description="Whether the workload may be preempted."
    )
    launched_from_cluster: bool = Field(
        False,
        description="Whether the machine that launches sees the volumes at the same paths, as a "
        "workspace of the project does: code, inputs and logs then go over them.",
    )
    custom_spec: dict[str, Any] = Field(
        default_factory=dict,
        description="Further fields of the workload's spec, as the API has them.",
    )

    @classmethod
    def required(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """What it takes to reach the control plane and to name the workload's place."""
        folder = "remote_job_dir" if values.get("remote_job_dir") else "pvc_nemo_run_dir"
        known = () if values.get("workspace") else (folder,)
        return ("base_url", "client_id", "client_secret", "project_name", "container_image", *known)

    def mounted(self) -> list[Mounted]:
        """`pvcs`."""
        return [
            Mounted(f"pvcs.{n}", pvc.claim_name or pvc.name or "", pvc.path)
            for n, pvc in enumerate(self.pvcs)
        ]
