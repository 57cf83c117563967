"""Training on rows as they are read: for data that is too large to prepare, in bounded memory.

The position in the stream is the number of rows that were read from it. A step takes the rows that
follow and nothing is carried over, so that a run is resumed by counting rows. Each rank reads all
rows, as their lengths decide which make a step, and keeps its share of the step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from itertools import islice

import numpy as np

from ...core.chat import ChatTokenizer, RowError, SourceRow, TokenizedChat, rows_fingerprint
from ...core.errors import UsageError
from ...core.schema import TrainConfig
from ...core.schema.data import DatasetConfig
from ..checkpoints.progress import Progress
from ..lines import say
from ..parallel.share import Share
from ..runtime import RuntimeConfig
from .ahead import ahead
from .assemble import layout_of, rows_within
from .batches import Batch, Collate, Layout
from .packing import OpenPacks
from .prepare import source_names
from .raw_stream import RawStream
from .rows import TokenRow
from .tokenizing import process_count, tokenize_all
from .tokens import ChatFormat

_SAID = 10
# The loop may still ask for the rows of steps that the host has not heard the outcome of.
_KEPT_STEPS = 256
_FUTILE = 100_000
# What PyTorch's DataLoader makes ahead for each worker.
_PREFETCH = 2


class RecentRows:
    """The rows of the last steps by their number in the stream; older ones are forgotten.

    One thread may add rows while another looks at those of steps that were handed out.

    Args:
        ahead: steps that are made before they are asked for.
    """

    def __init__(self, ahead: int = 0) -> None:
        self._kept = _KEPT_STEPS + ahead
        self._rows: dict[int, tuple[TokenRow, str]] = {}
        self._steps: deque[list[int]] = deque()

    def add(self, number: int, row: TokenRow, place: str) -> None:
        """Keep a row."""
        self._rows[number] = row, place

    def step(self, numbers: list[int]) -> None:
        """These rows make a step; those of a step long ago are let go."""
        self._steps.append(numbers)
        if len(self._steps) > self._kept:
            for number in self._steps.popleft():
                del self._rows[number]

    def __getitem__(self, number: int) -> TokenRow:
        return self._rows[number][0]

    def place(self, number: int) -> str:
        """File and line that a row was read from."""
        return self._rows[number][1]

    def length(self, number: int) -> int:
        """Tokens of a row."""
        return len(self[number].input_ids)


class StreamedRows:
    """What is trained on, read while training; takes the place of `TrainingRows`.

    Rows that cannot be trained on are left out, said, and counted: a run of days does not end for
    one of them. With `truncation: error` a row that is too long ends the run, as that asks for.

    Args:
        config: the run's config.
        chat_format: how conversations become tokens.
        chat: the same, opened.
        runtime: knows model and attention.
    """

    def __init__(
        self,
        config: TrainConfig,
        chat_format: ChatFormat,
        chat: ChatTokenizer,
        runtime: RuntimeConfig,
    ) -> None:
        found = config.dataset.sources()
        self._size = config.packed_sequence.packed_sequence_size
        self._dataset: DatasetConfig = rows_within(config.dataset, runtime, self._size or None)
        self._format, self._files = chat_format, [file for one in found for file in one.files]
        self._stream = RawStream(
            found, self._dataset, seed=config.rng.seed, shuffle=config.dataloader.shuffle
        )
        self.digest = rows_fingerprint(found, config.dataset.revision)
        """Stands for the sources: their sizes, their first and last rows, and their mixture."""
        self.sources = source_names([source.spec for source in found])
        loader = config.dataloader
        self._workers = loader.num_workers
        self._ahead = self._workers * (loader.prefetch_factor or _PREFETCH)
        self.rows = RecentRows(self._ahead)
        self.layout: Layout = layout_of(config, chat, runtime, len(found))
        self._left_out = 0

    def place(self, row: int) -> str:
        """File and line that a row was read from."""
        return self.rows.place(row)

    def epoch(self, samples: int) -> int:
        """The pass over the data in which the last of so many samples was read."""
        return self._stream.epoch(samples - 1)

    def total_steps(self, config: TrainConfig) -> int:
        """Steps of the whole run, which the config has to say."""
        assert config.step_scheduler.max_steps is not None
        return config.step_scheduler.max_steps

    def loader(
        self, config: TrainConfig, progress: Progress, *, share: Share, pin: bool
    ) -> Iterator[list[Batch]]:
        """The micro-batches of each step still to come; see `TrainingRows.loader`.

        With workers, a thread makes the steps ahead, and rows are tokenized by so many processes.

        Args:
            config: batch sizes.
            progress: where the run stands.
            share: which of the micro-batches are this process's.
            pin: put tensors where a GPU fetches them from without waiting.
        """
        made = self._made(config, progress, share, pin=pin)
        return ahead(made, self._ahead) if self._ahead else made

    def _made(
        self, config: TrainConfig, progress: Progress, share: Share, *, pin: bool
    ) -> Generator[list[Batch]]:
        plan = config.step_scheduler
        steps = self._steps(plan.global_batch_size, progress.samples, plan.num_epochs)
        for step, read in islice(steps, self.total_steps(config) - progress.step):
            numbers = [number for sample in step for number in sample]
            self.rows.step(numbers)
            packs = step if self._size else None
            collate = Collate(
                self.rows, plan.local_batch_size, self.layout, packs=packs, share=share
            )
            batches = collate(numbers if packs is None else range(len(packs)))
            # The position is counted once over all ranks.
            counted = [read if share.rank == 0 else 0, *[0] * (len(batches) - 1)]
            batches = [b._replace(samples=n) for b, n in zip(batches, counted, strict=True)]
            yield [batch.pin_memory() for batch in batches] if pin else batches

    def _steps(
        self, samples: int, start: int, passes: int | None
    ) -> Iterator[tuple[list[list[int]], int]]:
        """The rows of each step by sample, and how many rows of the stream it takes to its end."""
        packs = OpenPacks(samples, self._size or None)
        last = start
        for number, row, place in self._good(start, passes):
            if not packs.add(number, len(row.input_ids)):
                yield packs.take(), number - start
                start = number
                packs.add(number, len(row.input_ids))
            self.rows.add(number, row, place)
            last = number
        if rest := packs.take():
            yield rest, last + 1 - start

    def _good(self, start: int, passes: int | None) -> Iterator[tuple[int, TokenRow, str]]:
        """The rows that can be trained on, with their number in the stream and their place."""
        processes = self._workers or process_count(self._dataset, self._files)
        futile = 0
        # What is handed on to be tokenized comes back in the same order.
        handed: deque[tuple[int, int]] = deque()
        readable = self._readable(start, passes, handed)
        for read, chat in tokenize_all(readable, self._format, self._dataset, processes):
            number, source = handed.popleft()
            refused = self._refusal(chat)
            if refused is None and isinstance(chat, TokenizedChat):
                futile = 0
                ids = np.array(chat.input_ids, dtype=np.int32)
                row = TokenRow(ids, np.array(chat.trained, dtype=np.uint8), source)
                yield number, row, f"{read.file}:{read.number}"
                continue
            if refused is not None:
                self._leave_out(refused.at(read.file, read.number))
            futile += 1
            if futile == _FUTILE:
                raise UsageError(f"None of {_FUTILE} rows of the data set can be trained on.")

    def _readable(
        self, start: int, passes: int | None, handed: deque[tuple[int, int]]
    ) -> Iterator[SourceRow]:
        for number, (source, row) in enumerate(islice(self._stream, start, None), start=start):
            if passes is not None and self._stream.epoch(number) >= passes:
                return
            if isinstance(row, RowError):
                self._leave_out(row)
            else:
                handed.append((number, source))
                yield row

    def _refusal(self, chat: TokenizedChat | RowError) -> RowError | None:
        """Why a row is not trained on; None if it is."""
        if isinstance(chat, RowError):
            return chat
        longest, way = self._dataset.seq_length, self._dataset.truncation
        if way == "drop" and longest is not None and chat.length > longest:
            return RowError(f"The row has {chat.length} tokens, more than {longest}.", "too_long")
        if not any(chat.trained[1:]):
            return RowError("No token of the row is trained.", "unsupervised")
        return None

    def _leave_out(self, error: RowError) -> None:
        """Say the first rows that are left out, and how many there are at each power of ten.

        Raises:
            RowError: the row is too long and `dataset.truncation` says that none may be.
        """
        if error.refusal == "too_long" and self._dataset.truncation == "error":
            raise error
        self._left_out += 1
        count = self._left_out
        if count <= _SAID:
            say(f"tunedeck: warning: dataset: {error.place}: left out: {error.message}")
        elif count == 10 ** (len(str(count)) - 1):
            say(f"tunedeck: warning: dataset: {count} rows are left out so far")
