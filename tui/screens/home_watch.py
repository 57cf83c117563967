"""A thread beside home that looks at what there is, and tells it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from textual.message import Message

from ..words import trouble

if TYPE_CHECKING:
    from ...core.drafts import Draft
    from ...core.replays.replay import Listed
    from ...core.runs.overview import Glance
    from .page import Page

_PACE_S = 1.0


class Seen(Message):
    """What there is now; of the runs perhaps the newest alone."""

    def __init__(
        self,
        runs: list[Glance],
        drafts: list[Draft],
        replays: list[Listed],
        *,
        has_older: bool = False,
    ) -> None:
        super().__init__()
        self.runs, self.drafts, self.replays = runs, drafts, replays
        self.has_older = has_older


def look_on(page: Page, stop: threading.Event) -> None:
    """Look until told to stop, in a thread: what is known first, then what backends say.

    Core is imported here, after the first picture.

    Args:
        page: gets `Seen`; a failure of some backend is said once, as long as it lasts.
        stop: ends it.
    """
    from ...core.drafts import list_drafts
    from ...core.errors import TunedeckError
    from ...core.replays.replay import list_replays
    from ...core.runs.overview import Overview
    from ...core.runs.registry import Registry

    overview = Overview(Registry())
    before: list[str] = []
    asked = False
    while not stop.is_set():
        notes: list[str] = []
        runs: list[Glance] = []
        try:
            notes = overview.ask() if asked else []
            runs = overview.known()
        except (TunedeckError, OSError) as error:  # what else there is can be used all the same
            notes.append(trouble(error))
        for note in notes:
            if note not in before:
                page.app.call_from_thread(page.wizard.say, note, severity="warning")
        before = notes
        if not stop.is_set():
            replays = list_replays() if asked else []
            page.post_message(Seen(runs, list_drafts(), replays, has_older=overview.has_older))
        if asked:
            stop.wait(_PACE_S)
        asked = True
