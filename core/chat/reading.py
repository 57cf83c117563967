"""Rows out of JSON files, one at a time; what cannot be read is said by row number."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import Place, UsageError
from .rows import RowError
from .splits import WHOLE, Split

_MARKS = {
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
    b"\x1f\x8b": "gzip",
    b"PAR1": "Parquet",
}


LOOKED_AT = 8 << 20
"""Characters of text that are looked at before a launch: about five seconds on one core."""


class SourceRow(NamedTuple):
    """A row and where it stands: the line of a JSON-lines file, the item of an array, from 1."""

    file: str
    number: int
    row: dict[str, Any]


class FirstRows:
    """The first rows of some, and whether there were more.

    Args:
        rows: from `scan_rows`.
        most: how many of them; None for all.
        text: characters of text that they may have together; None for any number.

    Attributes:
        exhausted: whether there were no more, once they were gone through.
    """

    def __init__(
        self, rows: Iterator[SourceRow | RowError], *, most: int | None, text: int | None
    ) -> None:
        self._rows, self._most, self._room = rows, most, text
        self.exhausted = True

    def __iter__(self) -> Iterator[SourceRow | RowError]:
        for row in islice(self._rows, self._most):
            if self._room is not None and isinstance(row, SourceRow):
                self._room -= _characters(row.row)
                if self._room < 0:
                    self.exhausted = False
                    return
            yield row
        self.exhausted = next(self._rows, None) is None


def _characters(value: Any) -> int:
    """How much text a decoded JSON value holds."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 0
    return sum(map(_characters, value))


def iter_rows(files: Iterable[Path], split: Split = WHOLE) -> Iterator[SourceRow]:
    """Stream the rows of one source, its files one after the other.

    Raises:
        RowError: a row is not valid JSON, not UTF-8 or not an object; it carries file and number.
        UsageError: a file cannot be opened.
    """
    for row in scan_rows(files, split):
        if isinstance(row, RowError):
            raise row
        yield row


def scan_rows(files: Iterable[Path], split: Split = WHOLE) -> Iterator[SourceRow | RowError]:
    """Like `iter_rows`, but hands malformed rows over as errors and goes on."""
    files = tuple(files)
    stop: int | None
    if split.needs_total:
        start, stop = split.rows(count_rows(files))
    else:
        start = split.start.number if split.start else 0
        stop = split.stop.number if split.stop else None
    position = 0
    for file in files:
        for number, found in _decoded(file):
            if stop is not None and position >= stop:
                return
            if position >= start:
                yield _checked(str(file), number, found)
            position += 1


def count_rows(files: Iterable[Path]) -> int:
    """How many rows the files hold, malformed ones included."""
    return sum(sum(1 for _ in _raw(file)) for file in files)


def _checked(file: str, number: int, found: Any) -> SourceRow | RowError:
    if isinstance(found, RowError):
        return found.at(file, number)
    if not isinstance(found, dict):
        return RowError("The row is not a JSON object.", "malformed", place=Place(file, number))
    return SourceRow(file, number, found)


def _decoded(file: Path) -> Iterator[tuple[int, Any]]:
    for number, raw in _raw(file):
        yield number, _load(raw) if isinstance(raw, bytes) else raw


def _raw(file: Path) -> Iterator[tuple[int, Any]]:
    """The lines that are not blank, undecoded; or the items of an array, decoded."""
    try:
        with file.open("rb") as lines:
            head = lines.read(4096).removeprefix(codecs.BOM_UTF8)
            lines.seek(0)
            mark = next((name for mark, name in _MARKS.items() if head.startswith(mark)), None)
            if mark is not None:
                raise UsageError(
                    f"'{file}' is {mark}, not JSON text in UTF-8.",
                    fix="Save it as JSON lines in UTF-8, or name the right file.",
                )
            if head.lstrip().startswith(b"["):
                whole = _load(lines.read())
                items = whole if isinstance(whole, list) else [whole]
                yield from enumerate(items, start=1)
                return
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise UsageError(
            f"'{file}' cannot be read: {error.strerror}.",
            fix="Check the path and its permissions.",
        ) from error


def _load(raw: bytes) -> Any:
    """One JSON value, or the error that says why it is none."""
    try:
        return json.loads(raw.removeprefix(codecs.BOM_UTF8).decode("utf-8").rstrip())
    except UnicodeDecodeError as error:
        return RowError(
            f"The row is not UTF-8 (byte {error.start + 1} is {raw[error.start]:#04x}).",
            "malformed",
            fix="Save the file as JSON lines in UTF-8, or name the right file.",
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        column = f"column {error.colno}" if error.lineno == 1 else where
        return RowError(
            f"The row is not valid JSON: {error.msg} ({column}).",
            "malformed",
            fix="Mend or delete that line: each holds one JSON object.",
        )
    except RecursionError:
        return RowError("The row is nested too deeply to be read.", "malformed")
    except ValueError as error:
        return RowError(f"The row is not valid JSON: {error}.", "malformed")
