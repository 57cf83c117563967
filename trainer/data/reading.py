"""The rows of one source of a data set, from files or from the hub."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from huggingface_hub.errors import HfHubHTTPError

from ...core.chat import RowError, Source, SourceRow, parse_split, scan_rows
from ...core.errors import UsageError
from ...core.schema.data import DatasetConfig


def read_rows(
    source: Source, config: DatasetConfig, seed: int, errors: list[RowError]
) -> Iterator[SourceRow]:
    """The rows of a source; those that cannot be read are put with the errors.

    Args:
        source: files, or a hub id.
        config: which of its rows, and whether they are shuffled first.
        seed: of the shuffling.
        errors: what cannot be read is added to it.

    Raises:
        UsageError: the source cannot be read at all.
    """
    for row in _rows(source, config, seed):
        if isinstance(row, RowError):
            errors.append(row)
        else:
            yield row


def _rows(source: Source, config: DatasetConfig, seed: int) -> Iterator[SourceRow | RowError]:
    split = parse_split(config.split)
    if source.hub_id is not None:
        return _hub_rows(source.hub_id, config, seed)
    if not config.shuffle:
        return scan_rows(source.files, split)
    rows = list(scan_rows(source.files))
    start, stop = split.rows(len(rows))
    order = np.random.default_rng(seed).permutation(len(rows))[start:stop]
    return (rows[index] for index in order)


def hub_stream(hub_id: str, config: DatasetConfig) -> Iterator[SourceRow]:
    """The rows of a data set of the hub as they arrive.

    Raises:
        UsageError: it cannot be read, or its slice needs its length.
    """
    split = parse_split(config.split)
    if split.needs_total:
        raise UsageError(
            f"dataset.split: '{config.split}' needs the number of rows, which a stream does not "
            "know.",
            fix="Count rows from the beginning, e.g. train[:1000].",
        )
    start = split.start.number if split.start else 0
    stop = split.stop.number if split.stop else None
    rows = _load(hub_id, config, split.name, streaming=True)
    for number, row in enumerate(islice(rows, start, stop), start=start + 1):
        yield SourceRow(hub_id, number, row)


def _hub_rows(hub_id: str, config: DatasetConfig, seed: int) -> Iterator[SourceRow]:
    split = parse_split(config.split)
    rows = _load(hub_id, config, split.name, streaming=False)
    if config.shuffle:
        rows = rows.shuffle(seed=seed)
    start, stop = split.rows(len(rows))
    for number in range(start, stop):
        yield SourceRow(hub_id, number + 1, rows[number])


def _load(hub_id: str, config: DatasetConfig, split: str, *, streaming: bool) -> Any:
    import datasets

    # Progress bars have no place in a log.
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(
            hub_id, config.name, split=split, revision=config.revision, streaming=streaming
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise UsageError(
            f"The data set '{hub_id}' cannot be loaded from the hub: {error}",
            fix="Check its name, dataset.split and dataset.name, and the access to the hub.",
        ) from error
