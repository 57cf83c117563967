"""The rows of a run: prepared, packed where it packs, in order, and cut into batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader

from ...core.chat import ChatTokenizer
from ...core.schema import TrainConfig
from ...core.schema.data import DatasetConfig
from ..checkpoints.progress import Progress
from ..lines import line, say
from ..model.attention import attends_in_line
from ..parallel.share import Share
from ..runtime import RuntimeConfig
from .batches import Collate, Layout, build_loader
from .order import DataOrder, StepSampler
from .packing import Packs
from .prepare import Blend, prepare
from .rows import TokenRows
from .tokens import ChatFormat

_MULTIPLE = 64


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """What is trained on.

    Attributes:
        rows: the training rows.
        sources: what each source of them is called.
        packs: which rows share a sequence; None if each row is a sample.
        order: of the samples.
        layout: how rows become a batch.
        digest: stands for the rows, their tokens and their mixture.
    """

    rows: TokenRows
    sources: tuple[str, ...]
    packs: Packs | None
    order: DataOrder
    layout: Layout
    digest: str

    def epoch(self, samples: int) -> int:
        """The epoch that the last of so many samples belongs to."""
        return (samples - 1) // self.order.epoch_length

    def total_steps(self, config: TrainConfig) -> int:
        """Steps of the whole run."""
        return length(config, self.order.epoch_length)[1]

    def place(self, row: int) -> str:
        """File and line that a row was read from."""
        return self.rows.place(row)

    def loader(
        self, config: TrainConfig, progress: Progress, *, share: Share, pin: bool
    ) -> DataLoader[Any]:
        """The micro-batches of each step still to come.

        Args:
            config: batch sizes, and processes that collate ahead.
            progress: where the run stands.
            share: which of the micro-batches are this process's.
            pin: put tensors where a GPU fetches them from without waiting.
        """
        plan = config.step_scheduler
        collate = Collate(
            self.rows, plan.local_batch_size, self.layout, packs=self.packs, share=share
        )
        stop, _ = length(config, self.order.epoch_length)
        sampler = StepSampler(
            self.order, start=progress.samples, stop=stop, batch=plan.global_batch_size
        )
        return build_loader(sampler, collate, config.dataloader, pin=pin)


def training_rows(
    config: TrainConfig, chat_format: ChatFormat, chat: ChatTokenizer, runtime: RuntimeConfig
) -> TrainingRows:
    """Prepare the rows that are trained on.

    Raises:
        UsageError: the data cannot be read or trained on; names files and rows.
    """
    size = config.packed_sequence.packed_sequence_size
    data = prepare_table("dataset", config.dataset, config, chat_format, runtime, size or None)
    packs, sizes = None, data.sizes
    if size:
        packs = Packs(data.rows.lengths(), data.sizes, size)
        sizes = packs.sizes
        counts = {"packs": len(packs), "packed_sequence_size": size, "fill": packs.fill}
        say(f"tunedeck: dataset {line(counts)}")
    order = DataOrder(sizes, data.weights, config.rng.seed, config.dataloader.shuffle)
    if len(sizes) > 1:
        _say_shares(data.names, order)
    layout = layout_of(config, chat, runtime, len(data.sizes))
    return TrainingRows(data.rows, data.names, packs, order, layout, data.digest)


def _say_shares(names: tuple[str, ...], order: DataOrder) -> None:
    """What the weights of a blend come to: samples an epoch, and passes over each source."""
    for name, drawn, size in zip(names, order.drawn, order.sizes, strict=True):
        say(f"tunedeck: dataset/{name} {line({'an_epoch': drawn, 'passes': drawn / size})}")
        if not drawn:
            say(f"tunedeck: warning: dataset: the weight of {name} gives it no sample of an epoch")


def layout_of(
    config: TrainConfig, chat: ChatTokenizer, runtime: RuntimeConfig, sources: int = 1
) -> Layout:
    """Rows in one line wherever the model's layers keep them apart: no padding is computed."""
    apart = runtime.allow_flash_attn_args and attends_in_line(runtime.attn_impl)
    in_line = runtime.enable_seq_packing or apart
    pad = chat.pad_id or 0
    if pad == runtime.model_config.get_text_config().pad_token_id:
        # Its embedding is zero in some, where a gradient through a deviation (Gemma 3n) is none.
        pad = int(pad == 0)
    return Layout(pad, in_line, sources, _MULTIPLE)


def prepare_table(
    key: str,
    wanted: DatasetConfig,
    config: TrainConfig,
    chat_format: ChatFormat,
    runtime: RuntimeConfig,
    longest: int | None = None,
) -> Blend:
    """Prepare a data set within the model's positions, and say what became of it.

    Args:
        key: the table of the config that it is, for messages.
        wanted: that table.
        config: the run's config.
        chat_format: how conversations become tokens.
        runtime: knows the model.
        longest: rows over it are truncated as `wanted` says; None leaves it to `wanted`.

    Raises:
        UsageError: the data cannot be read or trained on; names files and rows.
    """
    within = rows_within(wanted, runtime, longest)
    blend = prepare(within, chat_format, table=key, seed=config.rng.seed)
    counts = {
        "rows": len(blend.rows),
        "tokens": blend.tokens,
        "supervised_tokens": blend.supervised,
    }
    say(f"tunedeck: {key} {line(counts)}")
    for warning in blend.warnings:
        say(f"tunedeck: warning: {key}: {warning}")
    return blend


def rows_within(
    wanted: DatasetConfig, runtime: RuntimeConfig, longest: int | None
) -> DatasetConfig:
    """A data set's table with rows no longer than it, the model or a pack allows."""
    limit = getattr(runtime.model_config.get_text_config(), "max_position_embeddings", None)
    lengths = [most for most in (wanted.seq_length, limit, longest) if most is not None]
    return wanted.model_copy(update={"seq_length": min(lengths, default=None)})


def length(config: TrainConfig, epoch_length: int) -> tuple[int, int]:
    """Samples and steps of the whole run; without epochs, its steps alone decide."""
    plan = config.step_scheduler
    limits = []
    if plan.num_epochs is not None:
        limits.append(plan.num_epochs * epoch_length)
    if plan.max_steps is not None:
        limits.append(plan.max_steps * plan.global_batch_size)
    samples = min(limits)
    return samples, math.ceil(samples / plan.global_batch_size)
