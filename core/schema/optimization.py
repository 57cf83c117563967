"""How long a run trains, with which optimizer, rate and loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from .base import Count, Foreign, Ignored, Number, Positive, Spelling, Table, Target


class StepSchedulerConfig(Table):
    """Batch sizes and the step counts at which things happen. A step is one optimizer update."""

    global_batch_size: Positive = Field(
        default=32, description="Rows (or packed sequences) of one step, over all ranks."
    )
    local_batch_size: Positive = Field(
        default=1, description="Rows of one forward pass on one rank: the micro-batch."
    )
    max_steps: Positive | None = Field(
        default=None, description="Stop after this many steps. Null trains for num_epochs."
    )
    num_epochs: Positive | None = Field(
        default=None,
        description="Stop after this many passes over the data. With max_steps, whichever comes "
        "first; null is one, or with max_steps as many as it takes.",
    )
    ckpt_every_steps: Positive | None = Field(
        default=None,
        description="Save a checkpoint every so many steps. Null saves at the end only.",
    )
    val_every_steps: Positive | None = Field(
        default=None, description="Validate every so many steps. Null validates at the end only."
    )
    log_every_steps: Positive = Field(
        default=10, description="Print a metric line every so many steps."
    )

    gc_every_steps: Ignored = Field(default=None, exclude=True, repr=False)
    log_remote_every_steps: Annotated[Any, Foreign(None, "log_every_steps is used.")] = Field(
        default=None, exclude=True, repr=False
    )
    loss_average_window_steps: Ignored = Field(default=None, exclude=True, repr=False)
    save_checkpoint_every_epoch: Annotated[
        bool | None, Foreign((False,), "Set step_scheduler.ckpt_every_steps.")
    ] = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _one_epoch(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("max_steps") is None:
            epochs = data.get("num_epochs")
            return {**data, "num_epochs": 1 if epochs is None else epochs}
        return data

    @model_validator(mode="after")
    def _divides(self) -> StepSchedulerConfig:
        if self.global_batch_size % self.local_batch_size:
            raise PydanticCustomError(
                "batch_size",
                "global_batch_size ({g}) is not a multiple of local_batch_size ({b})",
                {
                    "g": self.global_batch_size,
                    "b": self.local_batch_size,
                    "key": "global_batch_size",
                    "fix": f"Set global_batch_size to a multiple of {self.local_batch_size}, or "
                    "local_batch_size to a divisor of it.",
                },
            )
        return self


_OPTIMIZERS = {"AdamW": "adamw", "Adam": "adam", "AdamW8bit": "adamw8bit"}


class OptimizerConfig(Table):
    """The optimizer over the trainable parameters."""

    name: Annotated[Literal["adamw", "adam", "adamw8bit"], Spelling("_target_")] = Field(
        default="adamw",
        description="`adamw` decouples weight decay from the gradient; `adam` adds it to the "
        "gradient; `adamw8bit` is AdamW with its state in eight bits (needs the bitsandbytes "
        "package).",
    )
    lr: Annotated[Number, Field(gt=0)] = Field(
        default=1e-5,
        description="Highest learning rate. About 1e-5 suits full training, 1e-4 to 2e-4 LoRA.",
    )
    betas: tuple[Annotated[Number, Field(ge=0, lt=1)], Annotated[Number, Field(ge=0, lt=1)]] = (
        Field(default=(0.9, 0.999), description="Decay of the first and second moment.")
    )
    eps: Annotated[Number, Field(gt=0)] = Field(
        default=1e-8, description="Added to the denominator for stability."
    )
    weight_decay: Annotated[Number, Field(ge=0)] = Field(
        default=0.01,
        description="Decay of the weights a step, relative to the rate. Norms and biases do not "
        "decay.",
    )
    max_grad_norm: Annotated[
        Annotated[Number, Field(gt=0)] | None, Spelling("clip_grad_norm.max_norm", root=True)
    ] = Field(
        default=1.0, description="Gradients are scaled down to this norm. Null does not clip."
    )

    target_: Annotated[
        str | None,
        Target(
            (
                *("torch.optim.AdamW", "torch.optim.Adam", "adamw.AdamW", "adam.Adam"),
                "bitsandbytes.optim.AdamW8bit",
            ),
            "The nearest is torch.optim.AdamW.",
        ),
    ] = Field(default=None, alias="_target_", exclude=True, repr=False)
    foreach: Ignored = Field(default=None, exclude=True, repr=False)
    fused: Ignored = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _translate(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "name" not in data:
            last = str(data.get("_target_", "")).rpartition(".")[2]
            if last in _OPTIMIZERS:
                return {**data, "name": _OPTIMIZERS[last]}
        return data


class LrScheduleConfig(Table):
    """The learning rate over the steps: a linear warm-up, then a decay."""

    lr_decay_style: Literal["constant", "linear", "cosine", "wsd"] = Field(
        default="cosine",
        description="`wsd` holds the rate and decays it linearly over the last lr_decay_steps.",
    )
    lr_warmup_steps: Count | None = Field(
        default=None,
        description="Steps in which the rate rises linearly to lr. Null is a tenth of all steps, "
        "at most 1000.",
    )
    lr_decay_steps: Positive | None = Field(
        default=None,
        description="For linear and cosine, the step at which min_lr is reached; null is the last. "
        "For wsd, the length of the final decay; null is a fifth of all steps.",
    )
    min_lr: Annotated[Number, Field(ge=0)] | None = Field(
        default=None, description="Rate at the end of the decay. Null is a hundredth of lr."
    )


class LrMilestones(Table):
    """The steps at which each schedule of a list but the first begins."""

    milestones: tuple[Positive, ...] = Field(
        description="Ascending steps, one fewer than there are schedules.", min_length=1
    )


def _phase_kind(value: Any) -> str:
    keys = value if isinstance(value, Mapping) else getattr(type(value), "model_fields", {})
    return "<milestones>" if "milestones" in keys else "<schedule>"


LrPhase = Annotated[
    Annotated[LrScheduleConfig, Tag("<schedule>")] | Annotated[LrMilestones, Tag("<milestones>")],
    Discriminator(_phase_kind),
]
"""An item of a list of schedules."""


def _scheduler_kind(value: Any) -> str:
    return "<list>" if isinstance(value, list | tuple) else "<table>"


LrScheduler = Annotated[
    Annotated[LrScheduleConfig, Tag("<table>")] | Annotated[tuple[LrPhase, ...], Tag("<list>")],
    Discriminator(_scheduler_kind),
]
"""One schedule, or several in a row with the milestones between them as the last item."""


def phases_of(
    scheduler: LrScheduleConfig | tuple[LrScheduleConfig | LrMilestones, ...] | None,
) -> list[tuple[int, LrScheduleConfig]]:
    """The schedules and the step each begins at; null is a constant rate without warm-up.

    Raises:
        PydanticCustomError: if a list's milestones do not fit its schedules.
    """
    if scheduler is None:
        return [(0, LrScheduleConfig(lr_decay_style="constant", lr_warmup_steps=0))]
    if isinstance(scheduler, LrScheduleConfig):
        return [(0, scheduler)]
    schedules = [item for item in scheduler if isinstance(item, LrScheduleConfig)]
    marks = [
        step for item in scheduler if isinstance(item, LrMilestones) for step in item.milestones
    ]
    starts = [0, *marks]
    if not schedules or len(starts) != len(schedules) or starts != sorted(set(starts)):
        raise PydanticCustomError(
            "milestones",
            "{n} schedules need {m} ascending milestones, not {marks}",
            {
                "n": len(schedules),
                "m": max(len(schedules) - 1, 0),
                "marks": str(marks),
                "key": "lr_scheduler",
                "fix": "End the list with {milestones: [...]}: the step at which each schedule but "
                "the first begins.",
            },
        )
    return list(zip(starts, schedules, strict=True))


class LossConfig(Table):
    """The loss: cross entropy over the supervised tokens of the whole step."""

    name: Literal["masked_cross_entropy"] = Field(
        default="masked_cross_entropy",
        description="Cross entropy, summed over supervised tokens and divided by their number in "
        "the step, over all ranks and micro-batches.",
    )

    target_: Annotated[
        str | None,
        Target(
            (
                "MaskedCrossEntropy",
                "ChunkedCrossEntropy",
                "FusedLinearCrossEntropy",
                "TEParallelCrossEntropy",
            ),
            "The nearest is nemo_automodel.components.loss.masked_ce.MaskedCrossEntropy.",
        ),
    ] = Field(default=None, alias="_target_", exclude=True, repr=False)
    chunk_len: Ignored = Field(default=None, exclude=True, repr=False)
    compile: Ignored = Field(default=None, exclude=True, repr=False)


class RngConfig(Table):
    """Where chance comes from."""

    seed: Annotated[Count, Field(le=2**32 - 1), Spelling("seed", root=True)] = Field(
        default=1111, description="Seed of the data order, dropout and new weights."
    )
    deterministic: bool = Field(
        default=False,
        description="Only use operations that give the same bits every time. Slower on GPUs.",
    )

    target_: Annotated[str | None, Target(("StatefulRNG",), "Drop the key.")] = Field(
        default=None, alias="_target_", exclude=True, repr=False
    )
    ranked: Ignored = Field(default=None, exclude=True, repr=False)


class EarlyStoppingConfig(Table):
    """End the run when validation no longer improves."""

    metric: Literal["val_loss"] = Field(
        default="val_loss", description="The validation metric that has to fall."
    )
    patience: Positive = Field(
        default=3, description="Validations in a row without improvement after which the run ends."
    )
    min_delta: Annotated[Number, Field(ge=0)] = Field(
        default=0.0, description="A smaller fall than this is no improvement."
    )
