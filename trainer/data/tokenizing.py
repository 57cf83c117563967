"""Rows to tokens, in order, in this process or in several."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ...core.chat import ChatTokenizer, RowError, SourceRow, TokenizedChat, tokenize_rows
from .tokens import ChatFormat

if TYPE_CHECKING:
    from ...core.schema.data import DatasetConfig

Tokenized: TypeAlias = TokenizedChat | RowError
"""What became of a row."""

_BATCH = 512
_MOST_PROCESSES = 8
# A process more is worth its start-up where it has seconds of work.
_BYTES_PER_PROCESS = 16 * 2**20


def process_count(config: DatasetConfig, files: Sequence[Path]) -> int:
    """How many processes prepare these files, where the config leaves it open."""
    if config.num_proc is not None:
        return config.num_proc
    worth = 1 + sum(file.stat().st_size for file in files) // _BYTES_PER_PROCESS
    return min(worth, len(os.sched_getaffinity(0)), _MOST_PROCESSES)


def tokenize_all(
    rows: Iterable[SourceRow], chat_format: ChatFormat, config: DatasetConfig, processes: int
) -> Iterator[tuple[SourceRow, Tokenized]]:
    """Each row with its tokens, or with the error that says why it has none.

    Args:
        rows: what was read.
        chat_format: how conversations become tokens.
        config: which tokens are trained, and how long a row may be.
        processes: how many share the work; the result does not depend on it.
    """
    rows = iter(rows)
    batches = iter(lambda: list(islice(rows, _BATCH)), [])
    if processes == 1:
        work = _Work(chat_format, config)
        for batch in batches:
            yield from zip(batch, work([row.row for row in batch]), strict=True)
        return
    # Spawned, not forked: tokenizers and torch have threads by now.
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, _start, (chat_format, config)) as pool:
        pending: deque[tuple[list[SourceRow], Any]] = deque()
        for batch in batches:
            pending.append((batch, pool.apply_async(_run, ([row.row for row in batch],))))
            if len(pending) > 2 * processes:
                first, result = pending.popleft()
                yield from zip(first, result.get(), strict=True)
        for first, result in pending:
            yield from zip(first, result.get(), strict=True)


class _Work:
    """Tokenizes batches of rows."""

    def __init__(self, chat_format: ChatFormat, config: DatasetConfig) -> None:
        self._tokenizer: ChatTokenizer = chat_format.open()
        self._config = config

    def __call__(self, rows: list[dict[str, Any]]) -> list[Tokenized]:
        return list(
            tokenize_rows(
                self._tokenizer,
                rows,
                mask=self._config.mask,
                seq_length=self._config.seq_length,
                truncation=self._config.truncation != "error",
            )
        )


_work: _Work


def _start(chat_format: ChatFormat, config: DatasetConfig) -> None:
    """Set a worker process up; its cores are shared with the others."""
    global _work  # noqa: PLW0603  # a pool hands its workers functions alone
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _work = _Work(chat_format, config)


def _run(rows: list[dict[str, Any]]) -> list[Tokenized]:
    return _work(rows)
