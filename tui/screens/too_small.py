"""What is shown where the terminal has too little room."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widgets import Static

SMALLEST = Size(60, 18)
"""Columns and rows below which nothing can be laid out so that it can be read."""


def fits(size: Size) -> bool:
    """Whether the screens can be laid out."""
    return size.width >= SMALLEST.width and size.height >= SMALLEST.height


class TooSmallScreen(ModalScreen[None]):
    """Asks for more room; the app takes it away once there is enough. Nothing below it is lost."""

    def compose(self) -> ComposeResult:
        """One sentence."""
        yield Static(
            f"Tunedeck needs {SMALLEST.width} columns and {SMALLEST.height} rows. "
            "Make the window larger, or press ctrl+q.",
            markup=False,
        )
