"""Which rows are trained on, and how they become batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from .automodel import sliced
from .base import Count, Foreign, Ignored, LocalPath, Number, Positive, Spelling, Table, Target

if TYPE_CHECKING:
    from .. import chat

_TRUNCATION = {
    True: "right",
    "longest_first": "right",
    "only_first": "right",
    False: "error",
    "do_not_truncate": "error",
}


class DatasetPart(Table):
    """One source of a mixture."""

    path: Annotated[str, LocalPath("input")] = Field(
        description="File, glob, folder or hub id.", min_length=1
    )
    weight: Annotated[Number, Field(gt=0)] = Field(
        default=1.0,
        description="Share of the rows (or packed sequences) drawn from this source, relative to "
        "the others.",
    )


def _parts(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple({"path": item} if isinstance(item, str) else item for item in value)
    return value


def _truncation(value: Any) -> Any:
    return _TRUNCATION.get(value, value) if isinstance(value, bool | str) else value


def _source_kind(value: Any) -> str:
    return "<list>" if isinstance(value, list | tuple) else "<path>"


_Path = Annotated[str, LocalPath("input"), Field(min_length=1)]
_Parts = Annotated[tuple[DatasetPart, ...], Field(min_length=1)]
Source = Annotated[
    Annotated[_Path, Tag("<path>")] | Annotated[_Parts, Tag("<list>")],
    Discriminator(_source_kind),
    BeforeValidator(_parts),
]
"""A path or hub id, or a mixture of several."""


class DatasetConfig(Table):
    """Chat rows: `messages`, `prompt`/`completion` or ShareGPT `conversations`."""

    path_or_dataset_id: Source = Field(
        description="JSONL file, glob, folder or hub id; or a list of {path, weight}, mixed by "
        "weight. Metric lines then hold the loss on each.",
        examples=["data/train.jsonl", "HuggingFaceH4/ultrachat_200k"],
    )
    name: str | None = Field(
        default=None, description="Subset of a hub dataset, where it has several."
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of the hub id. Null is its main branch."
    )
    split: Annotated[
        str | None, Spelling("limit_dataset_samples"), Spelling("num_samples_limit")
    ] = Field(
        default=None,
        description="Split and slice, e.g. `train[:64]` or `test[10%:]`. Null takes `train`, or "
        "all rows of a file.",
    )
    seq_length: Annotated[Positive, Field(ge=2)] | None = Field(
        default=2048, description="Longest row in tokens. Null is the model's own limit."
    )
    truncation: Annotated[Literal["right", "drop", "error"], BeforeValidator(_truncation)] = Field(
        default="right",
        description="What happens to a row over seq_length: `right` cuts its end off, `drop` "
        "leaves it out, `error` stops before training starts.",
    )
    mask: Literal["assistant", "all"] = Field(
        default="assistant",
        description="Tokens that are trained: what the assistant says with its end of turn, or "
        "everything.",
    )
    streaming: bool = Field(
        default=False,
        description="Read rows as they are needed instead of preparing all first, shuffled in a "
        "buffer of 10,000. Needs step_scheduler.max_steps. Rows that cannot be trained on are left "
        "out and said.",
    )
    shuffle: Annotated[bool, Spelling("shuffle_seed")] = Field(
        default=False,
        description="Shuffle the rows once, by rng.seed, before they are sliced or packed.",
    )
    num_proc: Positive | None = Field(
        default=None,
        description="Processes that prepare the rows. Null is one per core, at most eight.",
    )

    target_: Annotated[
        str | None,
        Target(
            ("ChatDataset", "ChatDatasetConfig"),
            "Convert the rows to chat JSONL with `messages` and use "
            "nemo_automodel.components.datasets.llm.chat_dataset.ChatDataset, or no _target_.",
        ),
    ] = Field(default=None, alias="_target_", exclude=True, repr=False)
    padding: Ignored = Field(default=None, exclude=True, repr=False)
    tokenizer: Annotated[Any, Foreign((), "Set tokenizer.name.")] = Field(
        default=None, exclude=True, repr=False
    )
    chat_template: Annotated[Any, Foreign((), "Set tokenizer.chat_template.")] = Field(
        default=None, exclude=True, repr=False
    )
    limit_dataset_samples: Annotated[
        Any, Foreign((), "Take a slice with split, e.g. train[:64].")
    ] = Field(default=None, exclude=True, repr=False)
    num_samples_limit: Annotated[Any, Foreign((), "Take a slice with split, e.g. train[:64].")] = (
        Field(default=None, exclude=True, repr=False)
    )

    @model_validator(mode="before")
    @classmethod
    def _translate(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        data = sliced(data)
        if "shuffle_seed" in data:
            data = {"shuffle": data.pop("shuffle_seed") is not None, **data}
        return data

    def sources(self) -> list[chat.Source]:
        """The local files or the hub ids that the rows are read from.

        Raises:
            UsageError: as `chat.find_sources` does.
        """
        from ..chat import find_sources, parse_split

        path = self.path_or_dataset_id
        spec = path if isinstance(path, str) else [part.model_dump() for part in path]
        return find_sources(spec, split=parse_split(self.split).name)


class PackedSequenceConfig(Table):
    """Several rows in one sequence, each attending to itself alone."""

    packed_sequence_size: Count = Field(
        default=0,
        description="Tokens of a packed sequence; 0 packs nothing. Batch sizes then count packed "
        "sequences, and a longer row is treated as one over dataset.seq_length.",
    )

    split_across_pack: Annotated[
        bool | None,
        Foreign((False,), "A row is never split over two sequences here; drop the key."),
    ] = Field(default=None, exclude=True, repr=False)
    max_packs: Annotated[
        int | None, Foreign((), "Take a slice of the rows with dataset.split, e.g. train[:1000].")
    ] = Field(default=None, exclude=True, repr=False)
    packing_strategy: Ignored = Field(default=None, exclude=True, repr=False)
    num_proc: Ignored = Field(default=None, exclude=True, repr=False)


class DataloaderConfig(Table):
    """How prepared rows are handed to the training loop."""

    shuffle: bool = Field(
        default=True, description="A new order of the rows every epoch, from rng.seed."
    )
    num_workers: Count = Field(
        default=0,
        description="Processes that collate batches ahead, or tokenize rows ahead where they are "
        "streamed. 0 does it in the training process, when a batch is asked for.",
    )
    prefetch_factor: Positive | None = Field(
        default=None, description="Steps each worker prepares ahead. Null is two."
    )

    target_: Annotated[
        str | None,
        Target(("StatefulDataLoader", "DataLoader"), "Drop the key: rows are batched here."),
    ] = Field(default=None, alias="_target_", exclude=True, repr=False)
    collate_fn: Annotated[
        Any,
        Target(
            ("default_collater", "packed_sequence_thd_collater"),
            "Drop the key: rows are padded or packed as packed_sequence says.",
        ),
        BeforeValidator(lambda value: value.get("_target_") if isinstance(value, dict) else value),
    ] = Field(default=None, exclude=True, repr=False)
    batch_size: Annotated[Any, Foreign(None, "step_scheduler.local_batch_size is used.")] = Field(
        default=None, exclude=True, repr=False
    )
    drop_last: Ignored = Field(default=None, exclude=True, repr=False)
    pin_memory: Ignored = Field(default=None, exclude=True, repr=False)


class ValidationDataloaderConfig(DataloaderConfig):
    """The same for validation rows, which keep their order."""

    shuffle: bool = Field(default=False, description="Shuffle the validation rows.")
