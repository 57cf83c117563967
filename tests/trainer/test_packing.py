from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunedeck.trainer.data.packing import Packs, pack


@given(st.lists(st.integers(1, 64), max_size=200), st.integers(64, 300))
def test_every_row_is_whole_in_one_pack_and_none_is_over_full(
    lengths: list[int], size: int
) -> None:
    packs = pack(np.array(lengths, dtype=np.int64), size)
    assert sorted(row for rows in packs for row in rows) == list(range(len(lengths)))
    rooms = [size - sum(lengths[row] for row in rows) for rows in packs]
    assert all(room >= 0 for room in rooms)
    assert all(len(rows) for rows in packs)
    # The rows of any pack fit no pack that was there before it: else they would lie in it.
    assert sum(room >= size / 2 for room in rooms) <= 1


@given(
    st.lists(st.lists(st.integers(1, 32), min_size=1, max_size=30), min_size=1, max_size=4),
)
def test_a_pack_holds_rows_of_one_source(sources: list[list[int]]) -> None:
    lengths = [length for source in sources for length in source]
    sizes = [len(source) for source in sources]
    packs = Packs(np.array(lengths, dtype=np.int64), sizes, 32)
    source_of = np.repeat(np.arange(len(sizes)), sizes)
    of_packs = [{int(source_of[row]) for row in packs[index]} for index in range(len(packs))]
    assert [one for many in of_packs for one in many] == sorted(
        source for source, count in enumerate(packs.sizes) for _ in range(count)
    )
    assert packs.fill == pytest.approx(sum(lengths) / (32 * len(packs)))


def test_the_same_lengths_give_the_same_packs() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 500)
    one, other = Packs(lengths, [500], 128), Packs(lengths.copy(), [500], 128)
    assert [one[n] for n in range(len(one))] == [other[n] for n in range(len(other))]
    assert one.fill > 0.95


def test_a_row_longer_than_a_pack_is_an_error() -> None:
    with pytest.raises(ValueError, match="65 tokens"):
        pack(np.array([3, 65]), 64)
