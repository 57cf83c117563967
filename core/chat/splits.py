"""A part of a data set: `train`, `train[:64]`, `train[10%:20%]`, `[:100]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import UsageError

_SPLIT = re.compile(r"(?P<name>[\w.-]*)\s*(?:\[(?P<from>[^:\]]*):(?P<to>[^:\]]*)\])?")
_BOUND = re.compile(r"(?P<number>-?\d+)\s*(?P<percent>%?)")


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a slice: a count of rows, or a percentage of them; below 0 counts from the end."""

    number: int
    percent: bool

    def row(self, total: int) -> int:
        """The row it means among `total`, percentages to the closest row."""
        row = round(self.number * total / 100) if self.percent else self.number
        return min(max(row + total if row < 0 else row, 0), total)


@dataclass(frozen=True, slots=True)
class Split:
    """The name of a split, and the slice of its rows that is wanted."""

    name: str = "train"
    start: Bound | None = None
    stop: Bound | None = None

    @property
    def needs_total(self) -> bool:
        """Whether the rows have to be counted before the slice is known."""
        ends = [end for end in (self.start, self.stop) if end is not None]
        return any(end.percent or end.number < 0 for end in ends)

    def rows(self, total: int) -> tuple[int, int]:
        """First row and the one after the last, among `total`."""
        start = self.start.row(total) if self.start else 0
        return start, max(start, self.stop.row(total) if self.stop else total)

    def __str__(self) -> str:
        def end(bound: Bound | None) -> str:
            return f"{bound.number}{'%' if bound.percent else ''}" if bound else ""

        sliced = self.start is not None or self.stop is not None
        return f"{self.name}[{end(self.start)}:{end(self.stop)}]" if sliced else self.name


WHOLE = Split()
"""All rows of the training split."""


def parse_split(text: str | None) -> Split:
    """Read a split as `datasets` writes it.

    Raises:
        UsageError: the text is no split.
    """
    if text is None:
        return WHOLE
    match = _SPLIT.fullmatch(text.strip())
    if match is None:
        raise _refusal(text)
    ends: list[Bound | None] = []
    for group in (match["from"], match["to"]):
        bound = _BOUND.fullmatch(group.strip()) if group else None
        if group and group.strip() and bound is None:
            raise _refusal(text)
        ends.append(Bound(int(bound["number"]), bool(bound["percent"])) if bound else None)
    if any(end and end.percent and abs(end.number) > 100 for end in ends):
        raise _refusal(text)
    return Split(match["name"] or WHOLE.name, *ends)


def _refusal(text: str) -> UsageError:
    return UsageError(
        f"'{text}' is not a split.", fix="Write train, train[:64], train[10%:20%] or [:100]."
    )
