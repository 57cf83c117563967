"""Keeps the draft on disk while one chooses, without the screen ever waiting for the disk."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from ..core.drafts import Draft, delete_draft, save_draft
from ..core.errors import TunedeckError
from .background import Failed
from .words import trouble

if TYPE_CHECKING:
    from textual.message_pump import MessagePump


class Keeper:
    """Saves each draft that it is given, in order, the newest alone where several wait.

    Args:
        owner: is told by `Failed` if a draft cannot be saved, once as long as that lasts.
    """

    def __init__(self, owner: MessagePump) -> None:
        self._owner = owner
        self._waiting: queue.SimpleQueue[Draft | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def keep(self, draft: Draft) -> None:
        """Save a draft soon."""
        self._waiting.put(draft)

    def close(self, *, forget: str | None = None) -> None:
        """Save what waits and return once it is on disk; or forget the draft of an id."""
        self._waiting.put(None)
        self._thread.join(timeout=5)
        if forget is not None:
            # A draft that cannot be removed is offered once more, which is no harm.
            with suppress(OSError):
                delete_draft(forget)

    def _work(self) -> None:
        failing = False
        while (draft := self._waiting.get()) is not None:
            ended = False
            while not self._waiting.empty():
                newer = self._waiting.get()
                if newer is None:
                    ended = True
                    break
                draft = newer
            try:
                save_draft(draft)
                failing = False
            except OSError as error:
                if not failing:
                    self._owner.post_message(Failed(_not_kept(error)))
                failing = True
            if ended:
                return


def _not_kept(error: OSError) -> TunedeckError:
    return TunedeckError(
        f"What you choose is not kept: {trouble(error)}.",
        fix="Go on all the same, or mend that: the next change is saved again.",
    )
