"""What the profiles of all executors share: the types of their values and their common keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from ..spellings import SPELLINGS

EXECUTOR = "Where runs go: local, slurm, lepton, dgxcloud or hf_jobs."
"""What the key `executor` is for."""


def spelled(name: str) -> AliasChoices:
    """All the names under which a key loads, its own first."""
    return AliasChoices(*SPELLINGS[name])


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is wanted here, not true or false")
    return value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _number_as_text(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else value


Count = Annotated[int, BeforeValidator(_no_truth_value), Field(ge=0)]
"""How many; may be none."""

Positive = Annotated[int, BeforeValidator(_no_truth_value), Field(ge=1)]
"""How many; at least one."""

Text = Annotated[str, BeforeValidator(_number_as_text)]
"""Text that may also be written as a number: `mem = 0`, `time = 90`."""

Texts = Annotated[list[Text], BeforeValidator(_as_list)]
"""A list of texts. A single one need not be in brackets."""


class Item(BaseModel):
    """A table inside a list, such as one mount."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount, however the executor writes it.

    Attributes:
        key: where it stands in the profile, as `mounts.0`.
        source: the folder or volume that is mounted.
        target: where the job sees it.
    """

    key: str
    source: str
    target: str


class BaseProfile(BaseModel):
    """The keys that mean the same on every executor.

    Attributes:
        remote_paths: keys that name a folder over there, which must be absolute and on a mount;
            the one that others usually lie below comes first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    remote_paths: ClassVar[tuple[str, ...]] = ()

    executor: str = Field(description=EXECUTOR)
    nodes: Positive = Field(1, description="Machines of a run.")
    gpus_per_node: Count | None = Field(None, description="GPUs on each machine.")
    nproc_per_node: Positive | None = Field(
        None,
        validation_alias=spelled("nproc_per_node"),
        description="Processes on each machine; as many as GPUs where this is not set.",
    )
    ntasks_per_node: Positive | None = Field(
        None,
        description="The same by Slurm's name, as Nemotron's files have it: torchrun starts "
        "that many processes on one task.",
    )
    container_image: str | None = Field(
        None,
        validation_alias=spelled("container_image"),
        description="Container image with its tag, for example registry/name:1.0.",
    )
    env_vars: dict[str, str | int | float | bool | None] = Field(
        default_factory=dict,
        description='Environment variables of the job. Secrets by reference: "${oc.env:HF_TOKEN}".',
    )
    secrets: Annotated[list[str], BeforeValidator(_as_list)] | dict[str, str] = Field(
        default_factory=list,
        description="Environment variables that are secrets, by name; as a table "
        'NAME = "name/key" for secrets that the service already has.',
    )
    workspace: str | None = Field(
        None, description="Root of the persistent storage that every job sees."
    )
    remote_job_dir: str | None = Field(
        None, description="Folder for the runs: code, logs, checkpoints."
    )
    time: Text | None = Field(None, description="Time limit of a run, as HH:MM:SS.")
    startup_commands: Texts = Field(
        default_factory=list, description="Shell commands run in the job before the step starts."
    )
    setup_lines: Texts = Field(
        default_factory=list,
        description="Shell lines at the top of the job's script, outside the container.",
    )
    run_command: str | None = Field(
        None, description="Runs instead of the step's own command; {config} is the config's path."
    )
    pip_extras: Texts = Field(
        default_factory=list, description="Packages to install in the job before the step starts."
    )
    max_requeues: Count | None = Field(
        None, description="How often a preempted run is queued again and resumed."
    )

    @classmethod
    def required(cls, values: Mapping[str, Any]) -> tuple[str, ...]:
        """The keys that must have a value after inheritance, given the values that there are."""
        return ()

    def mounted(self) -> list[Mounted]:
        """What is mounted into the job's container."""
        return []

    @property
    def containerized(self) -> bool:
        """Whether the job sees its machine's folders only as far as they are mounted."""
        return True
