"""Chat rows to token rows: rendered, masked and tokenized once, then mapped from a cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.chat import RowError, Source, TokenizedChat
from ...core.files import write_atomic
from ...core.locations import cache_dir
from ...core.schema.data import DatasetConfig
from ..lines import say
from .reading import read_rows
from .rows import TokenRows, open_rows, write_rows
from .summary import Summary, raise_refused
from .tokenizing import process_count, tokenize_all
from .tokens import ChatFormat

if TYPE_CHECKING:
    import pyarrow as pa

_FORMAT = 3
"""Raised when the same rows would be prepared differently, so that old caches are left alone."""

_SAID_EVERY = 100_000
"""Rows: half a minute or so on one core, in which a log would look as if nothing happened."""


@dataclass(frozen=True, slots=True)
class Blend:
    """Prepared rows and how their sources are mixed.

    Attributes:
        rows: all rows.
        sizes: rows of each source.
        names: what each source is called.
        weights: share of each source; None takes every row once an epoch.
        tokens, supervised: over all rows.
        warnings: one sentence for each thing that a person would want to know of.
        digest: stands for the rows, their tokens and their mixture.
    """

    rows: TokenRows
    sizes: tuple[int, ...]
    names: tuple[str, ...]
    weights: tuple[float, ...] | None
    tokens: int
    supervised: int
    warnings: tuple[str, ...]
    digest: str


def prepare(config: DatasetConfig, chat_format: ChatFormat, *, table: str, seed: int) -> Blend:
    """Render, mask and tokenize a data set, or map it from the cache.

    Args:
        config: which rows, and how long they may be.
        chat_format: how conversations become tokens.
        table: the table of the config that it is, for messages.
        seed: shuffles the rows before they are sliced, where the config says so.

    Raises:
        UsageError: the data cannot be read or trained on; names files and rows.
    """
    sources = config.sources()
    tables, summaries, tokenizer = [], [], chat_format.open()
    digest = hashlib.sha256()
    for source in sources:
        file = _cache_file(source, config, chat_format.digest, seed)
        try:
            summary, rows = _read(file)
        except (OSError, ValueError, TypeError):  # not there yet, or damaged
            _write(source, config, chat_format, table, file, seed)
            summary, rows = _read(file)
        summaries.append(summary)
        tables.append((rows, _files(source)))
        # The name of the file is a digest of all that it was prepared from.
        digest.update(json.dumps([file.stem, source.weight, summary.rows]).encode())
    return Blend(
        TokenRows(tables),
        sizes=tuple(summary.rows for summary in summaries),
        names=source_names([source.spec for source in sources]),
        weights=tuple(source.weight for source in sources) if len(sources) > 1 else None,
        tokens=sum(summary.tokens for summary in summaries),
        supervised=sum(summary.supervised for summary in summaries),
        warnings=tuple(w for s in summaries for w in s.warnings(config, table, tokenizer)),
        digest=digest.hexdigest(),
    )


def source_names(specs: Sequence[str]) -> tuple[str, ...]:
    """Short names of sources, all different, that can stand in the key of a metric."""
    names: list[str] = []
    for number, spec in enumerate(specs):
        name = re.sub(r"[^\w.-]+", "_", Path(spec).stem, flags=re.ASCII) or "source"
        names.append(f"{name}_{number}" if name in names else name)
    return tuple(names)


def _cache_file(source: Source, config: DatasetConfig, digest: str, seed: int) -> Path:
    """Where the prepared rows of a source are kept: named by all that they depend on."""
    options: list[Any] = [_FORMAT, digest, config.split, config.seq_length]
    options += [config.truncation, config.mask, seed if config.shuffle else None]
    options += [source.hub_id, config.name, config.revision]
    content = hashlib.sha256(json.dumps(options).encode())
    for file in source.files:
        with file.open("rb") as opened:
            content.update(hashlib.file_digest(opened, "sha256").digest())
    return cache_dir() / "datasets" / f"{content.hexdigest()[:32]}.arrow"


def _files(source: Source) -> list[str]:
    """What the files of a source are called in messages."""
    return [str(file) for file in source.files] if source.hub_id is None else [source.hub_id]


def _read(file: Path) -> tuple[Summary, pa.Table]:
    """What `_write` left.

    Raises:
        OSError, ValueError, TypeError: nothing that can be read.
    """
    summary = Summary(**json.loads(file.with_suffix(".json").read_text(encoding="utf-8")))
    rows = open_rows(file)
    if rows.num_rows != summary.rows:
        raise ValueError(f"{file} holds {rows.num_rows} rows of {summary.rows}")
    return summary, rows


def _write(
    source: Source,
    config: DatasetConfig,
    chat_format: ChatFormat,
    table: str,
    file: Path,
    seed: int,
) -> None:
    """Prepare one source into an Arrow file, and publish it with its summary."""
    summary = Summary()
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write_rows(temporary, _prepared(source, config, chat_format, table, summary, seed))
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    write_atomic(file.with_suffix(".json"), json.dumps(asdict(summary)))


def _prepared(
    source: Source,
    config: DatasetConfig,
    chat_format: ChatFormat,
    table: str,
    summary: Summary,
    seed: int,
) -> Iterator[tuple[TokenizedChat, tuple[int, int]]]:
    """The rows that are trained on, each with the number of its file and its line."""
    errors: list[RowError] = []
    rows = read_rows(source, config, seed, errors)
    processes = process_count(config, source.files)
    # The same rows may lie elsewhere the next time.
    numbers = {name: number for number, name in enumerate(_files(source))}
    for row, chat in tokenize_all(rows, chat_format, config, processes):
        summary.seen += 1
        if summary.seen % _SAID_EVERY == 0:
            say(f"tunedeck: {table}: {summary.seen} rows of '{source.spec}' are prepared so far")
        if isinstance(chat, RowError):
            errors.append(chat.at(row.file, row.number))
        elif not any(chat.trained[1:]) and not chat.dropped_trained:
            error = RowError("No token of the row is trained.", "unsupervised")
            errors.append(error.at(row.file, row.number))
        elif summary.count(chat, config):
            yield chat, (numbers[row.file], row.number)
    raise_refused(errors, summary, source.spec, config, table)
