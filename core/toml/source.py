"""Reading a TOML file so that every key can be traced to its line and column."""

from __future__ import annotations

import bisect
import re
import tomllib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import Place, UsageError
from ..keys import KeyPath
from ..text_file import read_text

MAX_BYTES = 10_000_000
_MAX_DEPTH = 100  # far beyond any real file, far below where a recursive reader gives up


class TomlSource:
    """A parsed TOML document that remembers where its keys stand.

    Attributes:
        file: the path as it was given, for messages.
        text: the document, newlines as LF, without a byte order mark.
        data: what `tomllib` made of it.
    """

    def __init__(self, file: str, text: str, data: dict[str, Any]) -> None:
        self.file = file
        self.text = text
        self.data = data

    @cached_property
    def lines(self) -> list[str]:
        """The document's lines; `lines[place.line - 1]` is what a message points at."""
        return self.text.split("\n")

    def locate(self, key: Sequence[str | int]) -> Place:
        """The place of a key, a table header or an item of an array.

        Args:
            key: names and indexes from the root.

        Returns:
            Where it is defined. For what the document does not hold, the place of the innermost
            table around it that it does hold; the file alone where there is none.
        """
        path = tuple(key)
        while path:
            offset = self._offsets.get(path)
            if offset is not None:
                return _place(self.file, self._line_starts, offset)
            path = path[:-1]
        return Place(self.file)

    @cached_property
    def _offsets(self) -> dict[KeyPath, int]:
        from .scanner import TomlScanner  # most documents are read and never asked

        return TomlScanner(self.text).offsets

    @cached_property
    def _line_starts(self) -> list[int]:
        return _line_starts(self.text)


def read_toml(path: Path) -> TomlSource:
    """Read a TOML file.

    Raises:
        UsageError: if it cannot be read, is no UTF-8, no TOML, larger than 10 MB or nested deeper
            than a hundred levels; with the place and what to do.
    """
    return parse_toml(read_text(path, "TOML", MAX_BYTES), str(path))


def parse_toml(text: str, file: str) -> TomlSource:
    """Parse TOML text; `file` is named in messages.

    Raises:
        UsageError: if the text is no TOML or nested deeper than a hundred levels.
    """
    text = text.replace("\r\n", "\n")
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise _too_deep(file) from None
    except ValueError as error:
        raise _invalid(file, text, error) from error
    if _deeper_than(data, _MAX_DEPTH):
        raise _too_deep(file)
    return TomlSource(file, text, data)


def _too_deep(file: str) -> UsageError:
    return UsageError(
        f"Tables or arrays are nested more than {_MAX_DEPTH} levels deep.",
        place=Place(file),
        fix="Write the values with less nesting.",
    )


def _invalid(file: str, text: str, error: ValueError) -> UsageError:
    """`tomllib`'s complaint with its line and column; a key that is there twice is named."""
    message = re.sub(r" \(at (?:line \d+, column \d+|end of document)\)$", "", str(error))
    if message.startswith(("Cannot declare", "Cannot overwrite", "Cannot mutate")):
        from .scanner import TomlScanner

        scan = TomlScanner(text)
        if scan.repeated is not None:
            path, again = scan.repeated
            starts = _line_starts(text)
            first = _place(file, starts, scan.offsets[path])
            name = ".".join(str(part) for part in path)
            return UsageError(
                f"'{name}' is defined twice, first in line {first.line}.",
                place=_place(file, starts, again),
                fix="Keep one of the two, or give one another name.",
            )
    found = re.search(r"\(at line (\d+), column (\d+)\)$", str(error))
    if found:
        line, column = int(found[1]), int(found[2])
    else:
        line = text.count("\n") + 1
        column = len(text) - (text.rfind("\n") + 1) + 1
    return UsageError(
        f"This is not valid TOML: {message}.",
        place=Place(file, line, column),
        fix="Correct the line. Text values need quotes, and every key needs a value.",
    )


def _deeper_than(data: dict[str, Any], limit: int) -> bool:
    level: list[Any] = [data]
    for _ in range(limit):
        level = [
            value
            for container in level
            for value in (container.values() if isinstance(container, dict) else container)
            if isinstance(value, dict | list)
        ]
        if not level:
            return False
    return True


def _line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer("\n", text))]


def _place(file: str, starts: list[int], offset: int) -> Place:
    line = bisect.bisect_right(starts, offset)
    return Place(file, line, offset - starts[line - 1] + 1)
