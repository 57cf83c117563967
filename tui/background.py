"""Slow work beside the screen: in threads that touch no widget and hold up no one who quits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.message import Message

from ..core.errors import TunedeckError

if TYPE_CHECKING:
    from textual.message_pump import MessagePump


class Failed(Message):
    """Something that was tried in the background did not work."""

    def __init__(self, error: TunedeckError | OSError) -> None:
        super().__init__()
        self.error = error


class Broken(Message):
    """A bug: background work ended with an error that nobody foresaw."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def begin(owner: MessagePump, work: Callable[[threading.Event], None]) -> threading.Event:
    """Do something in a thread; setting the returned event asks it to stop.

    The thread is a daemon: a network call that hangs does not keep the program from ending. What
    it finds out it says by messages to `owner`.

    Args:
        owner: gets `Failed` if the work fails in a way that a person can act on.
        work: is handed the event and looks at it between two pieces of work.
    """
    stop = threading.Event()

    def run() -> None:
        try:
            work(stop)
        except (TunedeckError, OSError) as error:
            if not stop.is_set():
                owner.post_message(Failed(error))
        except BaseException as error:  # noqa: BLE001 - shown by the app, never swallowed
            owner.app.post_message(Broken(error))

    threading.Thread(target=run, daemon=True).start()
    return stop
