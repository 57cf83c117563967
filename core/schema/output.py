"""What a run leaves behind: checkpoints, sample answers, a Weights & Biases record."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Ignored, LocalPath, Names, Positive, Spelling, Table

_CONSOLIDATED = {"every": True, "all": True, "true": True, "none": False, "false": False}


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in signal.Signals.__members__ or name in _NOT_CAUGHT:
            raise PydanticCustomError(
                "signal",
                "'{name}' is no signal that a process can catch",
                {"name": name, "fix": "Name signals such as SIGTERM, SIGUSR1 or SIGUSR2."},
            )
    return names


_NOT_CAUGHT = ("SIGKILL", "SIGSTOP", "SIGINT")
Signals = Annotated[Names, AfterValidator(_known)]
"""Names of signals; SIGINT is a person's wish to end and always heard."""


class CheckpointConfig(Table):
    """Checkpoints: weights, optimizer, data position and random state, written atomically."""

    enabled: bool = Field(default=True, description="Save checkpoints at all.")
    checkpoint_dir: Annotated[str, LocalPath("output")] | None = Field(
        default=None,
        description="Folder of the checkpoints. Null is `checkpoints` in the run's folder.",
    )
    model_save_format: Literal["safetensors"] = Field(
        default="safetensors", description="File format of the weights."
    )
    save_consolidated: Annotated[
        bool | Literal["final"],
        BeforeValidator(lambda v: _CONSOLIDATED.get(v.lower(), v) if isinstance(v, str) else v),
    ] = Field(
        default=True,
        description="Also write a model's weights in Hugging Face form, which loads anywhere: with "
        "every checkpoint (true), with the last and the best ones (`final`), or not at all. An "
        "adapter is always written so.",
    )
    keep_last: Annotated[Positive | None, Spelling("max_recent_checkpoints")] = Field(
        default=2,
        validation_alias=AliasChoices("keep_last", "max_recent_checkpoints"),
        description="Keep so many of the newest checkpoints, and the best. Null keeps all.",
    )
    async_save: Annotated[bool, Spelling("is_async")] = Field(
        default=False,
        validation_alias=AliasChoices("async_save", "is_async"),
        description="Write checkpoints in the background while training goes on.",
    )
    preempt_signals: Signals = Field(
        default=("SIGTERM", "SIGUSR1"),
        description="Signals, to any process of the run, on which it saves and ends so that its "
        "launcher queues it again.",
    )
    restore_from: Annotated[str, LocalPath("input")] | None = Field(
        default=None,
        description="Checkpoint folder to resume from. Null starts afresh: nothing is resumed "
        "unless it is asked for.",
    )

    dequantize_base_checkpoint: Ignored = Field(default=None, exclude=True, repr=False)
    single_rank_consolidation: Ignored = Field(default=None, exclude=True, repr=False)
    consolidation_timeout_minutes: Ignored = Field(default=None, exclude=True, repr=False)
    best_metric_key: Ignored = Field(default=None, exclude=True, repr=False)


class SamplingConfig(Table):
    """Answers of the model to fixed prompts, to read how it changes."""

    every_steps: Positive | None = Field(
        default=None,
        description="Answer every so many steps. Null answers before and after training only.",
    )
    prompts: Names = Field(default=(), description="User messages to answer. Empty: no sampling.")
    max_new_tokens: Positive = Field(default=64, description="Longest answer in tokens.")


class WandbConfig(Table):
    """Weights & Biases, through its official client."""

    mode: Annotated[Literal["online", "offline", "disabled"], Spelling("enable")] = Field(
        default="disabled",
        description="`online` needs WANDB_API_KEY; `offline` writes files to sync later. Not set "
        "or null, it is online where a project is given, else disabled.",
    )
    project: str | None = Field(default=None, description="Project the run is filed under.")
    entity: str | None = Field(default=None, description="User or team that owns the project.")
    name: str | None = Field(
        default=None, description="Name of the run. Null is Tunedeck's run name."
    )
    group: str | None = Field(default=None, description="Group of runs shown together.")
    tags: Names = Field(default=(), description="Tags of the run.")

    dir: Ignored = Field(default=None, exclude=True, repr=False)
    save_dir: Ignored = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _mode(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        if data.pop("enable", True) is False:
            data["mode"] = "disabled"
        elif data.get("mode") is None:
            data["mode"] = "online" if data.get("project") else "disabled"
        return data


class RunConfig(Table):
    """What a config says about the launch itself."""

    env: dict[str, Any] = Field(
        default_factory=dict,
        description="Keys of the env profile, for the needs of this config.",
    )
    wandb: dict[str, Any] = Field(
        default_factory=dict,
        description="Values for ${oc.select:run.wandb.…} in configs that share them.",
    )
