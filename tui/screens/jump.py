"""Jump keys: every place that can have the focus gets a letter, and the letter goes there."""

from __future__ import annotations

from string import ascii_lowercase
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen
from textual.widget import Widget
from textual.widgets import Static


class JumpScreen(ModalScreen[Widget | None]):
    """Labels what can have the focus on the screen below; dismissed with what was chosen.

    Args:
        below: the screen.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Stay")]

    def __init__(self, below: Screen[object]) -> None:
        super().__init__()
        seen = [one for one in below.focus_chain if one.region.width and one.region.height]
        self._places = dict(zip(ascii_lowercase, seen, strict=False))

    def compose(self) -> ComposeResult:
        """A letter at the upper left of every place."""
        for letter, place in self._places.items():
            label = Static(f" {letter} ", classes="jump", markup=False)
            label.styles.offset = (place.region.x, place.region.y)
            yield label

    def on_key(self, event: events.Key) -> None:
        """Go to a letter's place; any other key stays."""
        if event.key == "escape":
            return
        event.stop()
        self.dismiss(self._places.get(event.key))
