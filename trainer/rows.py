"""Prepared rows, read from where they are memory-mapped."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import datasets


class TokenRow(NamedTuple):
    """One prepared row.

    Attributes:
        input_ids: [length] int32.
        trained: [length] uint8, 1 where the loss is taken on predicting the token.
        source: number of the source that it is from.
    """

    input_ids: NDArray[np.int32]
    trained: NDArray[np.uint8]
    source: int = 0


class TokenRows:
    """The rows of one or several sources, numbered one after the other.

    Args:
        tables: for each source its rows (columns `input_ids`, `trained` and `place`, the latter
            the number of a file and a line in it) and the names of its files.
    """

    def __init__(self, tables: Sequence[tuple[datasets.Dataset, Sequence[str]]]) -> None:
        self._chunks: list[tuple[Any, Any, Any, Sequence[str], int]] = []
        self._starts: list[int] = []
        self._rows = 0
        for source, (table, files) in enumerate(tables):
            columns = [table.data.column(name) for name in ("input_ids", "trained", "place")]
            for chunks in zip(*(column.chunks for column in columns), strict=True):
                self._starts.append(self._rows)
                self._chunks.append((*chunks, files, source))
                self._rows += len(chunks[0])

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> TokenRow:
        (ids, trained, _, _, source), row = self._find(index)
        return TokenRow(_values(ids, row), _values(trained, row), source)

    def place(self, index: int) -> str:
        """File and line that a row was read from."""
        (_, _, places, files, _), row = self._find(index)
        file, number = _values(places, row)
        return f"{files[file]}:{number}"

    def length(self, index: int) -> int:
        """Tokens of a row."""
        (ids, _, _, _, _), row = self._find(index)
        return len(ids[row])

    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every row, [rows] int64."""
        chunks = [chunk[0].value_lengths().to_numpy() for chunk in self._chunks]
        return np.concatenate(chunks, dtype=np.int64) if chunks else np.empty(0, dtype=np.int64)

    def _find(self, index: int) -> tuple[tuple[Any, Any, Any, Sequence[str], int], int]:
        chunk = bisect_right(self._starts, index) - 1
        return self._chunks[chunk], index - self._starts[chunk]


def _values(column: Any, row: int) -> NDArray[Any]:
    """The values of one list of a column, without a copy."""
    values: NDArray[Any] = column[row].values.to_numpy()
    return values
