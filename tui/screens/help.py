"""Help: what the screen is for, what the focused thing does, and every key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from .dialog import Dialog


class HelpScreen(Dialog[None]):
    """Explains the screen below it.

    Args:
        about: the screen that was being used.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,question_mark,q", "dismiss", "Close", id="help.close"),
    ]

    def __init__(self, about: Screen[object]) -> None:
        super().__init__()
        self._about = about

    def compose(self) -> ComposeResult:
        """One page of text."""
        with VerticalScroll(id="dialog", classes="page"):
            yield Static(Content("\n").join(list(self._text())), markup=False)

    def on_mount(self) -> None:
        """Let the arrow keys scroll."""
        self.entitle("Help", "esc closes")

    def _text(self) -> Iterator[Content]:
        """Help texts from the focused widget outwards, then the keys, nearest first."""
        said: set[str] = set()
        node = self._about.focused or self._about
        for owner in node.ancestors_with_self:
            words = getattr(owner, "HELP", None)
            if isinstance(words, str) and words and words not in said:
                said.add(words)
                yield Content(words.strip())
                yield Content("")
        yield Content.assemble(
            ("Keys", "bold"), ("   (at the right: id for keys.toml)", "$text-muted")
        )
        shown: set[str] = set()
        for active in self._about.active_bindings.values():
            binding = active.binding
            if not binding.id or binding.action in shown:
                continue
            shown.add(binding.action)
            key = self.app.get_key_display(binding)
            words = active.tooltip or binding.tooltip or binding.description
            yield Content.assemble(
                (f"{key:>12}  ", "bold $accent"), words, (f"  {binding.id}", "$text-muted")
            )
