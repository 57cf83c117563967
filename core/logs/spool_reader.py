"""Showing any part of a log of any size: an index of the file, never its content in memory."""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

from ..text import shown_line

_BLOCK = 1 << 16
_FINGERPRINT = 64
_SEARCHED = 512
"""Lines that are searched at a time."""


class SpoolReader:
    """Random access to the lines of a growing log.

    The index holds one number a block of 64 KiB: how many newlines there are up to its end.
    Counting them is as fast as reading, so that a log of a million lines opens at its tail at once;
    where a line starts is found out when it is shown.

    Args:
        path: the log; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._newlines = array("Q")
        self._indexed = 0
        self._inode: tuple[int, int] | None = None
        self._last_bytes = b""
        self._file: int | None = None

    def __len__(self) -> int:
        """Lines so far; one that is still being written counts."""
        return self.complete + (not self._last_bytes.endswith(b"\n") and self._indexed > 0)

    @property
    def path(self) -> Path:
        """The log."""
        return self._path

    @property
    def complete(self) -> int:
        """Lines so far that have their newline."""
        return self._newlines[-1] if self._newlines else 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._indexed

    def refresh(self) -> bool:
        """Take in what was written since. True if the file was replaced or truncated meanwhile."""
        try:
            facts = self._path.stat()
        except FileNotFoundError:
            replaced = self._inode is not None
            self._forget()
            return replaced
        inode = (facts.st_dev, facts.st_ino)
        replaced = self._inode is not None and (
            inode != self._inode or facts.st_size < self._indexed or self._rewritten()
        )
        if replaced:
            self._forget()
        if self._file is None:
            self._file = os.open(self._path, os.O_RDONLY)
            self._inode = inode
        self._index(facts.st_size)
        return replaced

    def lines(self, start: int, count: int) -> list[str]:
        """Lines from number `start` on (the first is 0), safe to show.

        Control sequences are taken out, a progress bar is shown as it was last drawn, what is not
        UTF-8 is replaced, and a very long line is cut.
        """
        end = min(start + count, len(self))
        return [self._shown(number) for number in range(max(0, start), end)]

    def raw(self, number: int) -> bytes:
        """One line, byte for byte, without its newline."""
        start, end = self._start_of(number), self._start_of(number + 1)
        return self._read(start, end).removesuffix(b"\n")

    def raw_lines(self, start: int, count: int) -> list[bytes]:
        """Lines from number `start` on, byte for byte, without their newlines."""
        data = self._read(self._start_of(start), self._start_of(start + count))
        return data.removesuffix(b"\n").split(b"\n") if data else []

    def find(
        self,
        pattern: re.Pattern[bytes],
        start: int,
        *,
        backwards: bool = False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> int | None:
        """The nearest line from number `start` on, itself included, that a pattern is found in.

        Args:
            pattern: what is looked for, in the line as it came.
            start: where to begin.
            backwards: look towards the beginning.
            stopped: asked now and then whether to give up.
        """
        number = start
        while 0 <= number < len(self) and not stopped():
            first = max(0, number - _SEARCHED + 1) if backwards else number
            last = number if backwards else min(len(self), number + _SEARCHED) - 1
            data = self._read(self._start_of(first), self._start_of(last + 1))
            if pattern.search(data):
                lines = data.split(b"\n")[: last - first + 1]
                order = range(len(lines) - 1, -1, -1) if backwards else range(len(lines))
                for index in order:
                    if pattern.search(lines[index]):
                        return first + index
            number = first - 1 if backwards else last + 1
        return None

    def tail_offset(self, count: int) -> int:
        """The byte offset at which the last `count` lines start."""
        return self._start_of(max(0, len(self) - count))

    def close(self) -> None:
        """Let go of the file."""
        self._forget()

    def __enter__(self) -> SpoolReader:
        self.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = self._inode = None
        self._newlines, self._indexed, self._last_bytes = array("Q"), 0, b""

    def _rewritten(self) -> bool:
        """Whether other bytes stand where the index ends: truncated, and already longer again."""
        return self._read_fingerprint() != self._last_bytes

    def _read_fingerprint(self) -> bytes:
        return self._read(max(0, self._indexed - _FINGERPRINT), self._indexed)

    def _index(self, size: int) -> None:
        while self._indexed < size:
            end_of_block = self._indexed - self._indexed % _BLOCK + _BLOCK
            data = self._read(self._indexed, min(end_of_block, size))
            if not data:
                break
            newlines = data.count(b"\n") + (self._newlines[-1] if self._newlines else 0)
            if self._indexed % _BLOCK:
                self._newlines[-1] = newlines
            else:
                self._newlines.append(newlines)
            self._indexed += len(data)
        self._last_bytes = self._read_fingerprint()

    def _start_of(self, number: int) -> int:
        """Where a line starts: behind the newline number `number`, counting from 1."""
        if number <= 0:
            return 0
        block = bisect_left(self._newlines, number)
        if block == len(self._newlines):
            return self._indexed
        wanted = number - (self._newlines[block - 1] if block else 0)
        data = self._read(block * _BLOCK, min((block + 1) * _BLOCK, self._indexed))
        position = -1
        for _ in range(wanted):
            position = data.find(b"\n", position + 1)
            if position < 0:  # the file has become shorter since, as the next refresh will find
                return block * _BLOCK + len(data)
        return block * _BLOCK + position + 1

    def _shown(self, number: int) -> str:
        return shown_line(self.raw(number))

    def _read(self, start: int, end: int) -> bytes:
        if self._file is None or end <= start:
            return b""
        return os.pread(self._file, end - start, start)
