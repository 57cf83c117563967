"""The configuration of a training run: the one source for validation, forms and documentation.

The vocabulary is NeMo AutoModel's, so that most of its YAML loads as it is. Keys of theirs that
only name an implementation are accepted and dropped; those that would change a result are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .adapter import Peft
from .automodel import in_our_places
from .base import Foreign, Ignored, NoneWord, Table
from .data import (
    DataloaderConfig,
    DatasetConfig,
    PackedSequenceConfig,
    ValidationDataloaderConfig,
)
from .model import ModelConfig, TokenizerConfig
from .optimization import (
    EarlyStoppingConfig,
    LossConfig,
    LrScheduleConfig,
    LrScheduler,
    OptimizerConfig,
    RngConfig,
    StepSchedulerConfig,
    phases_of,
)
from .output import CheckpointConfig, RunConfig, SamplingConfig, WandbConfig
from .parallel import CompileConfig, DistEnvConfig, DistributedConfig

_RECIPES = {"TrainFinetuneRecipeForNextTokenPrediction": "sft"}


def _recipe(value: Any) -> Any:
    if isinstance(value, Mapping):
        value = value.get("_target_")
    return _RECIPES.get(value.rpartition(".")[2], value) if isinstance(value, str) else value


def _refused(instead: str) -> Foreign:
    return Foreign((False, {}, []), instead)


class TrainConfig(Table):
    """Everything a training run is told. `sft` and `peft` steps share it."""

    recipe: Annotated[Literal["sft"], BeforeValidator(_recipe)] = Field(
        default="sft",
        description="What is trained: `sft` predicts the next token of supervised text. "
        "AutoModel's TrainFinetuneRecipeForNextTokenPrediction is the same.",
    )
    model: ModelConfig = Field(description="The model to train.")
    tokenizer: TokenizerConfig = Field(
        default_factory=TokenizerConfig, description="Tokenizer and chat template."
    )
    dataset: DatasetConfig = Field(description="The rows to train on.")
    validation_dataset: Annotated[DatasetConfig | None, NoneWord] = Field(
        default=None, description="Rows that are only evaluated. Null validates nothing."
    )
    packed_sequence: PackedSequenceConfig = Field(
        default_factory=PackedSequenceConfig, description="Several rows in one sequence."
    )
    dataloader: DataloaderConfig = Field(
        default_factory=DataloaderConfig, description="Batches of the training rows."
    )
    validation_dataloader: ValidationDataloaderConfig = Field(
        default_factory=ValidationDataloaderConfig, description="Batches of the validation rows."
    )
    step_scheduler: StepSchedulerConfig = Field(
        default_factory=lambda: StepSchedulerConfig(num_epochs=1),
        description="Batch sizes and intervals.",
    )
    optimizer: OptimizerConfig = Field(
        default_factory=OptimizerConfig, description="Optimizer and its rate."
    )
    lr_scheduler: LrScheduler | None = Field(
        default=None,
        description="The rate over the steps: one table, or a list of them that ends with "
        "{milestones: [...]}. Null is a constant rate.",
    )
    loss_fn: LossConfig = Field(default_factory=LossConfig, description="The loss.")
    peft: Peft = Field(
        default=None,
        description="`lora` or its table trains an adapter; null trains the whole model.",
    )
    distributed: DistributedConfig = Field(
        default_factory=DistributedConfig, description="How the ranks share the work."
    )
    dist_env: DistEnvConfig = Field(
        default_factory=DistEnvConfig, description="How the ranks talk to each other."
    )
    compile: CompileConfig = Field(default_factory=CompileConfig, description="torch.compile.")
    checkpoint: CheckpointConfig = Field(
        default_factory=CheckpointConfig, description="Saving and resuming."
    )
    rng: RngConfig = Field(default_factory=RngConfig, description="Seeds.")
    early_stopping: EarlyStoppingConfig | None = Field(
        default=None, description="End when validation no longer improves. Null never does."
    )
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig, description="Answers to fixed prompts during training."
    )
    wandb: WandbConfig = Field(default_factory=WandbConfig, description="Weights & Biases.")
    run: RunConfig = Field(default_factory=RunConfig, description="About the launch itself.")

    ci: Ignored = Field(default=None, exclude=True, repr=False)
    nvtx: Ignored = Field(default=None, exclude=True, repr=False)
    autopipeline: Annotated[
        Any, _refused("There is no pipeline parallelism here; use distributed.tp_size.")
    ] = Field(default=None, exclude=True, repr=False)
    fp8: Annotated[
        Any, Foreign((False, {}, {"enabled": False}), "Set model.torch_dtype=bfloat16.")
    ] = Field(default=None, exclude=True, repr=False)
    qat: Annotated[
        Any, Foreign((False, {}, {"enabled": False}), "Quantize after training instead.")
    ] = Field(default=None, exclude=True, repr=False)
    quantization: Annotated[Any, _refused("Set peft.quantization=nf4.")] = Field(
        default=None, exclude=True, repr=False
    )
    neftune: Annotated[Any, _refused("Set peft.dropout to regularize.")] = Field(
        default=None, exclude=True, repr=False
    )
    clip_grad_norm: Annotated[Any, _refused("Set optimizer.max_grad_norm.")] = Field(
        default=None, exclude=True, repr=False
    )
    parallelizer: Ignored = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _their_places(cls, data: Any) -> Any:
        return in_our_places(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        conflicts = list(self._conflicts())
        if conflicts:
            raise PydanticCustomError(
                "conflicts",
                "{message}",
                {"message": "; ".join(what for _, what, _ in conflicts), "conflicts": conflicts},
            )
        return self

    def _conflicts(self) -> Iterator[tuple[str, str, str]]:
        """Key, message and remedy of what does not go together.

        Among them is what NeMo RL's `validate_and_prepare_config` refuses, but for packed sequences
        with context parallelism, which work here.
        """
        if self.dataset.streaming and self.step_scheduler.max_steps is None:
            yield (
                "step_scheduler.max_steps",
                "dataset.streaming has no known length, and max_steps is not set",
                "Set step_scheduler.max_steps.",
            )
        if self.dataset.streaming and self.dataset.shuffle:
            yield (
                "dataset.shuffle",
                "dataset.shuffle reads all rows before the first step, which streaming does not",
                "Set dataset.shuffle=false: dataloader.shuffle draws rows from a buffer.",
            )
        if self.validation_dataset is not None and self.validation_dataset.streaming:
            yield (
                "validation_dataset.streaming",
                "validation takes the same rows each time and cannot stream",
                "Set validation_dataset.streaming=false and take a slice with split.",
            )
        if self.early_stopping is not None and (
            self.validation_dataset is None or self.step_scheduler.val_every_steps is None
        ):
            yield (
                "early_stopping",
                "early stopping needs validation at intervals",
                "Set validation_dataset.path_or_dataset_id and step_scheduler.val_every_steps.",
            )
        for _, schedule in phases_of(self.lr_scheduler):
            if schedule.min_lr is not None and schedule.min_lr > self.optimizer.lr:
                several = isinstance(self.lr_scheduler, tuple)
                yield (
                    "lr_scheduler" if several else "lr_scheduler.min_lr",
                    f"min_lr ({schedule.min_lr:g}) is above optimizer.lr ({self.optimizer.lr:g})",
                    "Lower min_lr or raise optimizer.lr.",
                )

    def lr_phases(self) -> list[tuple[int, LrScheduleConfig]]:
        """The schedules of the learning rate and the step each begins at."""
        return phases_of(self.lr_scheduler)

    def remarks(self) -> list[tuple[str, str]]:
        """Dotted key and words for what is allowed but most likely not meant."""
        steps = self.step_scheduler.max_steps
        if steps is None:
            return []
        found = []
        for start, schedule in self.lr_phases():
            if start >= steps:
                words = f"the run ends at step {steps}, before its milestone at step {start}"
                found.append(("lr_scheduler", words))
            elif start + (schedule.lr_warmup_steps or 0) >= steps:
                words = f"the run ends at step {steps}, before its warm-up does"
                found.append(("lr_scheduler", words))
        return found
