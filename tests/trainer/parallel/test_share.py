from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunedeck.trainer.parallel.share import Share


@given(items=st.lists(st.integers(), max_size=40), ranks=st.integers(1, 9))
def test_every_item_is_dealt_out_once_and_all_ranks_get_as_many(
    items: list[int], ranks: int
) -> None:
    shares = [Share(rank, ranks).take(items) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    rounds = [item for dealt in zip(*shares, strict=True) for item in dealt]
    assert rounds[: len(items)] == items
    assert rounds[len(items) :] == [None] * (len(rounds) - len(items))
    assert len(rounds) - len(items) < ranks
