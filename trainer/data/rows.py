"""Prepared rows, read from where they are memory-mapped."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ...core.chat import TokenizedChat

_AT_ONCE = 1024
_COLUMNS = {"input_ids": pa.int32(), "trained": pa.uint8(), "place": pa.int64()}
_SCHEMA = pa.schema([(name, pa.list_(kind)) for name, kind in _COLUMNS.items()])


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


class RowsByNumber(Protocol):
    """Rows that can be asked for by number."""

    def __getitem__(self, index: int, /) -> TokenRow:
        """A row."""

    def length(self, index: int, /) -> int:
        """Tokens of a row."""


class TokenRows:
    """The rows of one or several sources, numbered one after the other.

    Args:
        tables: for each source its rows (columns `input_ids`, `trained` and `place`, the latter
            the number of a file and a line in it) and the names of its files.
    """

    def __init__(self, tables: Sequence[tuple[pa.Table, Sequence[str]]]) -> None:
        self._chunks: list[tuple[Any, Any, Any, Sequence[str], int]] = []
        self._starts: list[int] = []
        self._rows = 0
        for source, (table, files) in enumerate(tables):
            columns = [table.column(name) for name in ("input_ids", "trained", "place")]
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
        chunks = [_numbers(chunk[0].value_lengths()) for chunk in self._chunks]
        return np.concatenate(chunks, dtype=np.int64) if chunks else np.empty(0, dtype=np.int64)

    def _find(self, index: int) -> tuple[tuple[Any, Any, Any, Sequence[str], int], int]:
        chunk = bisect_right(self._starts, index) - 1
        return self._chunks[chunk], index - self._starts[chunk]


def write_rows(file: Path, rows: Iterable[tuple[TokenizedChat, tuple[int, int]]]) -> None:
    """Write rows to an Arrow stream.

    Args:
        file: where to.
        rows: each with the number of the file it is from, and of its line there.
    """
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
        rows = iter(rows)
        while some := list(islice(rows, _AT_ONCE)):
            chats, places = zip(*some, strict=True)
            columns = ([c.input_ids for c in chats], [c.trained for c in chats], places)
            lists = [
                _lists(values, kind)
                for values, kind in zip(columns, _COLUMNS.values(), strict=True)
            ]
            writer.write_batch(pa.record_batch(lists, schema=_SCHEMA))


def open_rows(file: Path) -> pa.Table:
    """Map the rows of an Arrow stream into memory, where they take no room until they are read."""
    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_stream(source).read_all()


def _lists(rows: Sequence[Sequence[Any]], kind: pa.DataType) -> pa.ListArray:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    values = np.fromiter(chain.from_iterable(rows), kind.to_pandas_dtype(), count=offsets[-1])
    return pa.ListArray.from_arrays(_array(offsets, pa.int32()), _array(values, kind))


def _values(column: Any, row: int) -> NDArray[Any]:
    """The values of one list of a column, without a copy."""
    return _numbers(column[row].values)


# By their buffers: Arrow's own ways to and from numpy import pandas, which is 25 MiB.


def _numbers(array: Any) -> NDArray[Any]:
    """The numbers of an Arrow array that lacks none, without a copy."""
    kind = np.dtype(array.type.to_pandas_dtype())
    content = array.buffers()[1]
    if content is None:
        return np.empty(0, kind)
    return np.frombuffer(content, kind, len(array), array.offset * kind.itemsize)


def _array(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """The same the other way."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
