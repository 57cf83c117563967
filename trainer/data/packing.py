"""Packing: several rows in one sequence, none of them cut, none of them left out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Packs:
    """Which rows share a sequence.

    Args:
        lengths: tokens of each row, those of all sources one after the other.
        sizes: rows of each source; a pack holds rows of one source.
        size: the most tokens of a pack.

    Attributes:
        sizes: packs of each source; they are numbered one after the other.
        fill: share of the packs' room that tokens take.

    Raises:
        ValueError: a row is longer than a pack.
    """

    def __init__(self, lengths: NDArray[np.int64], sizes: Sequence[int], size: int) -> None:
        packed: list[NDArray[np.int64]] = []
        per_source, offset = [], 0
        for rows in sizes:
            made = pack(lengths[offset : offset + rows], size)
            packed += [rows_of_one + offset for rows_of_one in made]
            per_source.append(len(made))
            offset += rows
        self.sizes = tuple(per_source)
        self.fill = float(lengths.sum()) / (size * max(len(packed), 1))
        self._ends = np.cumsum([len(rows_of_one) for rows_of_one in packed])
        self._rows = np.concatenate(packed) if packed else np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> list[int]:
        """The rows of a pack, ascending."""
        start = int(self._ends[index - 1]) if index else 0
        rows: list[int] = self._rows[start : int(self._ends[index])].tolist()
        return rows


class OpenPacks:
    """The samples of one step, filled with rows as they come.

    Args:
        count: samples of a step.
        size: the most tokens of a sample; None makes each row one.
    """

    def __init__(self, count: int, size: int | None) -> None:
        self._count, self._size = count, size
        self._packs: list[list[int]] = []
        self._rooms: list[int] = []

    def add(self, row: int, length: int) -> bool:
        """Put a row into the fullest sample that has room; False if none has.

        Raises:
            ValueError: the row is longer than a sample.
        """
        size = self._size if self._size is not None else length
        if length > size:
            raise ValueError(f"a row of {length} tokens does not fit a pack of {size}")
        fitting = [at for at, room in enumerate(self._rooms) if room >= length]
        if fitting and self._size is not None:
            at = min(fitting, key=self._rooms.__getitem__)
            self._packs[at].append(row)
            self._rooms[at] -= length
            return True
        if len(self._packs) == self._count:
            return False
        self._packs.append([row])
        self._rooms.append(size - length)
        return True

    def take(self) -> list[list[int]]:
        """The rows of each sample; new ones are begun."""
        packs, self._packs, self._rooms = self._packs, [], []
        return packs


def pack(lengths: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Put rows into as few packs as the best-fit-decreasing rule finds.

    The longest rows come first, each into the pack that it leaves the least room in
    (at most 11/9 of the best number of packs: Johnson 1973). The result depends on the lengths
    alone, so that a run that resumes finds the same packs.

    Args:
        lengths: tokens of each row.
        size: the most tokens of a pack.

    Returns:
        For each pack its rows, ascending.

    Raises:
        ValueError: a row is longer than a pack.
    """
    if len(lengths) and lengths.max() > size:
        raise ValueError(f"a row of {lengths.max()} tokens does not fit a pack of {size}")
    packs: list[list[int]] = []
    # The packs that have a given room left, and one bit for each room that some pack has: the
    # least room that is enough is then the lowest bit from the row's length on.
    by_room: dict[int, list[int]] = {}
    rooms = 0
    for row in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[row])
        enough = rooms >> length
        if enough:
            room = (enough & -enough).bit_length() - 1 + length
            chosen = by_room[room].pop()
            if not by_room[room]:
                rooms ^= 1 << room
            packs[chosen].append(row)
        else:
            room, chosen = size, len(packs)
            packs.append([row])
        left = room - length
        by_room.setdefault(left, []).append(chosen)
        rooms |= 1 << left
    return [np.sort(np.array(rows, dtype=np.int64)) for rows in packs]
