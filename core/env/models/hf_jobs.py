"""A profile that submits to Hugging Face Jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field

from .base import EXECUTOR, BaseProfile, Item, Mounted, Positive, Text, spelled


class HFVolume(Item):
    """One bucket or repository of the Hub in the job's container."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    type: Literal["bucket", "model", "dataset", "space"] = Field(description="What it is.")
    source: str = Field(description="Its id, as namespace/name.")
    mount_path: str = Field(alias="mountPath", description="Where it is seen in the container.")
    read_only: bool = Field(
        False, alias="readOnly", description="Whether it may not be written; all but buckets."
    )


class HFJobsProfile(BaseProfile):
    """Keys of the executor `hf_jobs`. The token comes from the environment or the login."""

    executor: Literal["hf_jobs"] = Field("hf_jobs", description=EXECUTOR)
    flavor: str | None = Field(
        None, description="Hardware, such as a10g-small or h100x8; see: hf jobs hardware."
    )
    time: Text | None = Field(
        None,
        validation_alias=spelled("timeout"),
        description="Time limit, such as 90m, 2h or 1d; the service's own is 30 minutes.",
    )
    namespace: str | None = Field(
        None, description="User or organization that the job belongs to and is charged to."
    )
    volumes: list[HFVolume] = Field(
        default_factory=list,
        description="Buckets and repositories in the container, each as "
        "{type, source, mount_path, read_only}.",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels of the job.")
    output_repo: str | None = Field(
        None,
        description="Repository of the Hub that what a run makes is uploaded to, as "
        "namespace/name; the job needs HF_TOKEN for it.",
    )
    attempts: Positive | None = Field(
        None, description="How often the service tries before the job counts as failed."
    )

    @classmethod
    def required(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The image, the hardware that is paid for, who pays, and until when at most."""
        return ("container_image", "flavor", "namespace", "timeout")

    def mounted(self) -> list[Mounted]:
        """`volumes`."""
        return [
            Mounted(f"volumes.{n}", f"{volume.type}:{volume.source}", volume.mount_path)
            for n, volume in enumerate(self.volumes)
        ]
