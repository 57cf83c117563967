"""A log through a filter: which lines are wanted is found out once, and remembered by number."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from pathlib import Path

from .log_filter import LogFilter
from .spool_reader import SpoolReader

_PIECE = 4096
_AT_ONCE = 4 * _PIECE


class FilteredReader:
    """The wanted lines of a log, numbered by themselves.

    Args:
        reader: the whole log; it is shared, and closed by whoever opened it.
        wanted: which lines are shown.
    """

    def __init__(self, reader: SpoolReader, wanted: LogFilter) -> None:
        self.reader, self.wanted = reader, wanted
        self._numbers = array("Q")
        self._seen = 0
        self._chosen = wanted.chooser()

    @property
    def path(self) -> Path:
        """The log."""
        return self.reader.path

    @property
    def size(self) -> int:
        """How far the filter has come, in lines of the whole log."""
        return self._seen

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, index: int) -> int:
        """The number that a wanted line has in the whole log."""
        return self._numbers[index]

    def index_of(self, number: int) -> int:
        """The first wanted line at or after a line of the whole log; the last where none is."""
        from bisect import bisect_left

        return min(bisect_left(self._numbers, number), max(len(self) - 1, 0))

    def refresh(self) -> bool:
        """Take in some of what the log says since. True if it was replaced or truncated meanwhile.

        It looks at so many lines that a screen that calls this ten times a second never waits.
        """
        replaced = self.reader.refresh()
        if replaced:
            self._numbers, self._seen = array("Q"), 0
            self._chosen = self.wanted.chooser()
        self.catch_up(limit=_AT_ONCE)
        return replaced

    def catch_up(self, *, limit: int | None = None, ended: bool = False) -> bool:
        """Look at lines that have not been looked at. True once all have been.

        Args:
            limit: at most about so many lines.
            ended: whether the last line is looked at though it has no newline: no more will come.
        """
        end = len(self.reader) if ended else self.reader.complete
        last = end if limit is None else min(end, self._seen + limit)
        while self._seen < last:
            lines = self.reader.raw_lines(self._seen, min(_PIECE, last - self._seen))
            if not lines:  # the file has become shorter since, as the next refresh will find
                break
            chosen = self._chosen
            self._numbers.extend(n for n, line in enumerate(lines, self._seen) if chosen(line))
            self._seen += len(lines)
        return self._seen >= end

    def lines(self, start: int, count: int) -> list[str]:
        """Wanted lines from number `start` on, safe to show."""
        return [
            self.reader.lines(self._numbers[index], 1)[0]
            for index in range(max(0, start), min(start + count, len(self)))
        ]

    def raw(self, number: int) -> bytes:
        """One wanted line, byte for byte, without its newline."""
        return self.reader.raw(self._numbers[number])

    def find(
        self,
        pattern: re.Pattern[bytes],
        start: int,
        *,
        backwards: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> int | None:
        """The nearest wanted line from number `start` on that a pattern is found in."""
        order = range(start, -1, -1) if backwards else range(max(start, 0), len(self))
        for index in order:
            if stopped():
                return None
            if index < len(self) and pattern.search(self.raw(index)):
                return index
        return None

    def close(self) -> None:
        """Let go of the file."""
        self.reader.close()
