"""How the ranks of a run share the work."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Count, Foreign, Ignored, NoneWord, Number, Positive, Spelling, Table, Target


def _none_is_one(value: Any) -> Any:
    words = {"none", "null", ""}
    return 1 if value is None or (isinstance(value, str) and value.lower() in words) else value


Degree = Annotated[Positive, BeforeValidator(_none_is_one)]
"""The size of one dimension of the mesh; null and `none` are one."""


class DistributedConfig(Table):
    """The device mesh. World size = dp_size · tp_size · cp_size · ep_size."""

    strategy: Annotated[Literal["fsdp2", "ddp"], Spelling("_target_")] = Field(
        default="fsdp2",
        description="`fsdp2` shards weights, gradients and optimizer state; `ddp` keeps a copy on "
        "each rank.",
    )
    dp_size: Annotated[Positive | None, NoneWord] = Field(
        default=None, description="Data parallel ranks. Null is what the other sizes leave."
    )
    dp_replicate_size: Degree = Field(
        default=1, description="Replicas of the sharded model (HSDP); divides dp_size."
    )
    tp_size: Degree = Field(
        default=1, description="Tensor parallel ranks: each layer's weights are split."
    )
    cp_size: Degree = Field(
        default=1, description="Context parallel ranks: each sequence is split."
    )
    ep_size: Degree = Field(
        default=1, description="Expert parallel ranks, for mixture-of-experts models."
    )
    sequence_parallel: bool = Field(
        default=False,
        description="Split activations along the sequence too, within tensor parallelism.",
    )
    activation_checkpointing: bool | Literal["selective"] = Field(
        default=False,
        description="Recompute activations in the backward pass to save memory: true for all, "
        "`selective` for those that are cheap to recompute.",
    )
    cpu_offload: bool = Field(
        default=False, description="Keep weights and optimizer state in main memory between uses."
    )
    defer_fsdp_grad_sync: bool = Field(
        default=True, description="Reduce gradients once a step instead of once a micro-batch."
    )

    target_: Annotated[
        str | None,
        Target(
            ("FSDP2Config", "FSDP2Manager", "DDPConfig", "DDPManager"),
            "The nearest is nemo_automodel.components.distributed.config.FSDP2Config.",
        ),
    ] = Field(default=None, alias="_target_", exclude=True, repr=False)
    pp_size: Annotated[
        int | None,
        Foreign((1,), "There is no pipeline parallelism here; shard with fsdp2 or use tp_size."),
        NoneWord,
    ] = Field(default=None, exclude=True, repr=False)
    pipeline: Ignored = Field(default=None, exclude=True, repr=False)
    moe: Ignored = Field(default=None, exclude=True, repr=False)
    reshard_after_forward: Ignored = Field(default=None, exclude=True, repr=False)
    activation_checkpointing_scope: Annotated[
        Any, Foreign(("all",), "Use activation_checkpointing=selective.")
    ] = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _translate(cls, data: Any) -> Any:
        if isinstance(data, dict) and "strategy" not in data:
            last = str(data.get("_target_", "")).rpartition(".")[2]
            return {**data, "strategy": "ddp"} if last.startswith("DDP") else data
        return data

    @model_validator(mode="after")
    def _fits(self) -> DistributedConfig:
        split = {
            key: getattr(self, key)
            for key in ("dp_replicate_size", "tp_size", "cp_size", "ep_size")
            if getattr(self, key) > 1
        }
        if self.strategy == "ddp" and (split or self.cpu_offload):
            raise PydanticCustomError(
                "ddp",
                "strategy ddp keeps a whole model on each rank and does not go with {keys}",
                {
                    "keys": ", ".join(split or ["cpu_offload"]),
                    "key": "strategy",
                    "fix": "Set distributed.strategy=fsdp2.",
                },
            )
        if self.dp_size is not None and self.dp_size % self.dp_replicate_size:
            raise PydanticCustomError(
                "dp_replicate_size",
                "dp_size ({dp}) is not a multiple of dp_replicate_size ({replicas})",
                {
                    "dp": self.dp_size,
                    "replicas": self.dp_replicate_size,
                    "key": "dp_replicate_size",
                    "fix": "Set dp_replicate_size to a divisor of dp_size.",
                },
            )
        return self


class DistEnvConfig(Table):
    """How ranks talk to each other."""

    backend: Literal["auto", "nccl", "gloo"] = Field(
        default="auto", description="`auto` is nccl on GPUs and gloo on CPUs."
    )
    timeout_minutes: Annotated[Number, Field(gt=0)] = Field(
        default=30,
        description="A collective that takes longer than this many minutes fails the run.",
    )

    @property
    def timeout(self) -> timedelta:
        """How long a collective may take."""
        return timedelta(minutes=self.timeout_minutes)


class CompileConfig(Table):
    """torch.compile, applied to each transformer block."""

    enabled: bool = Field(
        default=False, description="Compile the blocks. Pays off on GPUs in long runs."
    )
    after_steps: Count = Field(
        default=0, description="Train so many steps first, so that a failing run fails fast."
    )

    mode: Ignored = Field(default=None, exclude=True, repr=False)
    fullgraph: Ignored = Field(default=None, exclude=True, repr=False)
    dynamic: Ignored = Field(default=None, exclude=True, repr=False)
    backend: Ignored = Field(default=None, exclude=True, repr=False)
