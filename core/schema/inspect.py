"""The configuration of a look at a data set: what training will make of it, without training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import LocalPath, Positive, Table
from .data import DatasetConfig, PackedSequenceConfig
from .model import TokenizerConfig
from .output import RunConfig


class InspectBatchConfig(Table):
    """The batches that the share of padding is reckoned for."""

    global_batch_size: Positive = Field(default=32, description="Rows of one step.")
    local_batch_size: Positive = Field(
        default=1, description="Rows of one forward pass: those padded to the same length."
    )


class InspectConfig(Table):
    """Rows in; out come counts, findings, and the first rows token by token."""

    recipe: Literal["inspect"] = Field(default="inspect", description="What is done.")
    tokenizer: TokenizerConfig = Field(description="Tokenizer and chat template of the model.")
    dataset: DatasetConfig = Field(description="The rows, as a training config names them.")
    packed_sequence: PackedSequenceConfig = Field(
        default_factory=PackedSequenceConfig, description="Several rows in one sequence."
    )
    step_scheduler: InspectBatchConfig = Field(
        default_factory=InspectBatchConfig, description="Batch sizes."
    )
    limit: Positive | None = Field(
        default=None, description="Count so many rows at most. Null counts all."
    )
    show: Positive = Field(default=3, description="Rows that are shown token by token.")
    output_path: Annotated[str, LocalPath("output")] | None = Field(
        default=None,
        description="The report as JSON. Null is `inspection.json` in the run's folder.",
    )
    run: RunConfig = Field(default_factory=RunConfig, description="About the launch itself.")
