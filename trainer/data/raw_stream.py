"""Rows of a data set as they are read, without end: shuffled in a buffer, sources by weight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...core.chat import RowError, Source, SourceRow, parse_split, scan_rows
from ...core.errors import UsageError
from ...core.schema.data import DatasetConfig
from .reading import hub_stream

BUFFER = 10_000
"""Rows of a source that a row is drawn from."""

Raw = tuple[int, SourceRow | RowError]
"""The number of the source and a row of it, or the error that says why it cannot be read."""


class RawStream:
    """The rows of all sources in the order of the run: a function of the seed alone.

    A source that is read to its end begins anew, shuffled differently. Sources take turns so that
    after every row each has had its share, to within one row.

    Args:
        sources: files or hub ids, with their weights.
        config: which of their rows.
        seed: of the shuffling.
        shuffle: draw rows from a buffer instead of taking them as they come.
        buffer: rows of the buffer of each source.

    Raises:
        UsageError: while it is read: a source cannot be opened, or has no rows.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: DatasetConfig,
        *,
        seed: int,
        shuffle: bool,
        buffer: int = BUFFER,
    ) -> None:
        self._sources, self._config, self._seed = sources, config, seed
        self._shuffle, self._buffer = shuffle, buffer
        self._passes = [0] * len(sources)
        self._read = 0
        self._ends: list[int] = []

    def __iter__(self) -> Iterator[Raw]:
        rows = [self._endless(number) for number in range(len(self._sources))]
        weights = np.array([source.weight for source in self._sources])
        due = np.zeros(len(weights))
        while True:
            due += weights / weights.sum()
            chosen = int(due.argmax())
            due[chosen] -= 1
            self._read += 1
            yield chosen, next(rows[chosen])

    def epoch(self, rows: int) -> int:
        """How often every source had been read to its end when so many rows had been drawn."""
        return sum(end <= rows for end in self._ends)

    def _endless(self, source: int) -> Iterator[SourceRow | RowError]:
        while True:
            generator = np.random.default_rng((self._seed, source, self._passes[source]))
            rows = self._once(self._sources[source])
            empty = True
            for row in self._drawn(rows, generator) if self._shuffle else rows:
                empty = False
                yield row
            if empty:
                raise UsageError(f"'{self._sources[source].spec}' has no rows.")
            before = min(self._passes)
            self._passes[source] += 1
            if min(self._passes) > before:
                # The row that is asked for now is the first of the next pass.
                self._ends.append(self._read - 1)

    def _once(self, source: Source) -> Iterator[SourceRow | RowError]:
        if source.hub_id is not None:
            return hub_stream(source.hub_id, self._config)
        return scan_rows(source.files, parse_split(self._config.split))

    def _drawn(
        self, rows: Iterator[SourceRow | RowError], generator: np.random.Generator
    ) -> Iterator[SourceRow | RowError]:
        """Fill a buffer, then give away a random row of it for each that comes."""
        held: list[SourceRow | RowError] = []
        for row in rows:
            if len(held) < self._buffer:
                held.append(row)
                continue
            at = int(generator.integers(self._buffer))
            yield held[at]
            held[at] = row
        for at in generator.permutation(len(held)):
            yield held[int(at)]
