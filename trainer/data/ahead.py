"""Making things before they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import Empty, Queue
from typing import TypeVar

Item = TypeVar("Item")
_CLOSING = 0.05


def ahead(items: Generator[Item], count: int) -> Iterator[Item]:
    """Run a generator in a thread, so that items are there when they are asked for.

    Args:
        items: runs in the thread from its first item to its end, and is closed there.
        count: how many items are made ahead.

    Raises:
        BaseException: whatever the generator raises, when its items up to there were taken.
    """
    ready: Queue[tuple[Item] | BaseException | None] = Queue(count)
    closed = threading.Event()

    def make() -> None:
        last: BaseException | None = None
        try:
            for item in items:
                ready.put((item,))
                if closed.is_set():
                    break
        # Whatever it is: whoever waits for the next item is to hear of it.
        except BaseException as error:  # noqa: BLE001
            last = error
        finally:
            items.close()
        ready.put(last)

    thread = threading.Thread(target=make, name="ahead", daemon=True)
    thread.start()
    try:
        while isinstance(got := ready.get(), tuple):
            yield got[0]
        if got is not None:
            raise got
    finally:
        closed.set()
        while thread.is_alive():
            # It may be waiting for room.
            try:
                ready.get(timeout=_CLOSING)
            except Empty:
                continue
