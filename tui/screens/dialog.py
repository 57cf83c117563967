"""What all questions over a screen have in common."""

from __future__ import annotations

from typing import TypeVar

from textual import events
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget

from ...core.text import strip_controls

T = TypeVar("T")


class Dialog(ModalScreen[T]):
    """A question in a frame named `dialog`; dismissed with its answer, or None where it is left."""

    @property
    def unfinished(self) -> bool:
        """Whether leaving by a stray click would lose what a person has typed."""
        return False

    def on_click(self, event: events.Click) -> None:
        """A click beside the frame leaves it."""
        beside = not self._frame.region.contains_point(event.screen_offset)
        if beside and self.is_current and not self.unfinished:
            self.dismiss(None)

    def entitle(self, title: str, keys: str) -> None:
        """Say above the frame what is asked, and below it what the keys do."""
        self._frame.border_title = Content(strip_controls(title).replace("\n", " "))
        self._frame.border_subtitle = keys

    @property
    def _frame(self) -> Widget:
        return self.query_one("#dialog")
