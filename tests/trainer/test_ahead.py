from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from tunedeck.trainer.data.ahead import ahead


def counted(to: int, made: list[int], ended: threading.Event) -> Generator[int]:
    try:
        for number in range(to):
            made.append(number)
            yield number
    finally:
        ended.set()


@pytest.mark.parametrize("count", [1, 3, 100])
def test_items_come_in_order_and_none_is_lost(count: int) -> None:
    ended = threading.Event()
    assert list(ahead(counted(20, [], ended), count)) == list(range(20))
    assert ended.is_set()


def test_no_more_is_made_than_was_asked_for_ahead() -> None:
    made: list[int] = []
    ended = threading.Event()
    items = ahead(counted(1000, made, ended), 3)
    assert next(items) == 0
    # One is taken, three lie ready, and one is in the hands of the thread.
    assert len(made) <= 5
    items.close()  # type: ignore[attr-defined]
    assert ended.is_set()
    assert len(made) < 20


def test_what_goes_wrong_is_raised_after_the_items_before_it() -> None:
    def broken() -> Generator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    items, found = ahead(broken(), 2), []
    with pytest.raises(ValueError, match="the third"):
        for item in items:
            found.append(item)  # it raises on the way
    assert found == [1, 2]


def test_no_thread_is_left() -> None:
    before = threading.active_count()
    items = ahead(counted(50, [], threading.Event()), 2)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
