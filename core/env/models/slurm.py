"""A profile that submits to Slurm, on this machine or over SSH."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from .base import EXECUTOR, BaseProfile, Count, Mounted, Positive, Text, Texts


class SlurmProfile(BaseProfile):
    """Keys of the executor `slurm`."""

    remote_paths: ClassVar[tuple[str, ...]] = ("workspace", "remote_job_dir", "build_cache_dir")

    executor: Literal["slurm"] = Field("slurm", description=EXECUTOR)
    tunnel: Literal["ssh", "local"] | None = Field(
        None,
        description="ssh submits through the login host, local from this machine; ssh where there "
        "is a host and this is not set.",
    )
    host: str | None = Field(None, description="Login host, or a Host of your SSH config.")
    port: Positive | None = Field(None, description="SSH port of the login host.")
    user: str | None = Field(None, description="User name on the login host.")
    identity: str | None = Field(None, description="Private key file on this machine.")
    known_hosts: str | None = Field(
        None, description="File of known host keys on this machine, instead of the usual ones."
    )
    proxy_jump: str | None = Field(
        None, description="Host that the connection goes through, as [user@]host[:port]."
    )
    account: str | None = Field(None, description="Account that the job is charged to.")
    partition: str | None = Field(None, description="Partition to submit to.")
    run_partition: str | None = Field(
        None, description="Partition for attached runs (-r), instead of 'partition'."
    )
    batch_partition: str | None = Field(
        None, description="Partition for detached runs (-b), instead of 'partition'."
    )
    qos: str | None = Field(None, description="Quality of service.")
    reservation: str | None = Field(None, description="Reservation to run in.")
    constraint: str | None = Field(None, description="Node features that are required.")
    nodelist: str | None = Field(None, description="Nodes to run on, and no others.")
    exclude: str | None = Field(None, description="Nodes never to run on.")
    gres: str | None = Field(
        None,
        description="Generic resources of each node, such as gpu:h100:8, for sites that do not "
        "take --gpus-per-node.",
    )
    cpus_per_task: Positive | None = Field(None, description="CPU cores of each task.")
    mem: Text | None = Field(
        None, description="Memory of each node, such as 200G; 0 asks for all there is."
    )
    exclusive: bool | None = Field(None, description="Whether to have the nodes alone.")
    array: Text | None = Field(None, description="Array indexes, such as 0-7%2.")
    dependency: str | None = Field(
        None, description="Jobs to wait for, such as afterok:1234 or singleton."
    )
    signal: str | None = Field(
        None,
        description="Signal before the time limit, as B:USR1@SECONDS; the run saves on it and is "
        "queued again.",
    )
    additional_parameters: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict,
        description="Any other sbatch options by their long names; true for one without a value.",
    )
    container_runtime: Literal["pyxis", "apptainer", "none"] | None = Field(
        None,
        description="How the image is run; pyxis where there is an image and this is not set.",
    )
    mounts: Texts = Field(
        default_factory=list,
        description="Folders in the container, as HOST:CONTAINER[:ro].",
    )
    lustre_mount: str | None = Field(
        None, description="One more mount, as HOST:CONTAINER; empty for none."
    )
    modules: Texts = Field(
        default_factory=list, description="Environment modules to load before the step starts."
    )
    venv: str | None = Field(
        None, description="Virtual environment over there to activate before the step starts."
    )
    build_image: str | None = Field(None, description="Image that container builds run in.")
    build_partition: str | None = Field(
        None, description="Partition for importing or building an image, instead of 'partition'."
    )
    build_time: Text | None = Field(
        None, description="Time limit for importing or building an image, instead of 'time'."
    )
    build_cache_dir: str | None = Field(
        None, description="Folder on shared storage that built images are kept in."
    )
    build_include_gpus: bool | None = Field(
        None, description="Whether importing or building an image asks for GPUs."
    )
    build_gpus_per_node: Count | None = Field(
        None, description="GPUs for importing or building an image."
    )
    build_registry: str | None = Field(None, description="Registry that built images go to.")

    @classmethod
    def required(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Over SSH the host and a folder there; with a container runtime the image."""
        tunnel = values.get("tunnel") or ("ssh" if values.get("host") else "local")
        over_ssh = ("host", "remote_job_dir") if tunnel == "ssh" else ()
        runtime = values.get("container_runtime")
        image = ("container_image",) if runtime in ("pyxis", "apptainer") else ()
        return over_ssh + image

    def mounted(self) -> list[Mounted]:
        """`mounts` and `lustre_mount`, each HOST:CONTAINER with options after it."""
        texts = [(f"mounts.{n}", text) for n, text in enumerate(self.mounts)]
        if self.lustre_mount:
            texts.append(("lustre_mount", self.lustre_mount))
        parts = [(key, *text.split(":")[:2]) for key, text in texts if ":" in text]
        return [Mounted(key, source, target) for key, source, target in parts]

    @property
    def containerized(self) -> bool:
        """With an image, unless no runtime is asked for."""
        return self.container_image is not None and self.container_runtime != "none"
