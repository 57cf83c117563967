"""What every full screen has: a title line, the command that does the same, the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Static

from ...core.text import strip_controls

if TYPE_CHECKING:
    from ..app import WizardApp


class Page(Screen[None]):
    """A screen with a title above and, below, the command that does the same thing.

    Subclasses give their widgets in `body` and say what they are for in `HELP`.
    """

    HELP: ClassVar[str] = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "ctrl+y",
            "copy_command",
            "Copy command",
            show=False,
            id="page.copy",
            tooltip="Copy the command line that does what this screen shows",
        ),
    ]

    command_line = ""

    @property
    def wizard(self) -> WizardApp:
        """The application, by its own type."""
        return cast("WizardApp", self.app)

    def compose(self) -> ComposeResult:
        """Title, body, command, keys."""
        yield Static(id="title", markup=False)
        with Vertical(id="body"):
            yield from self.body()
        yield Static(id="command", markup=False)
        yield Footer()

    def body(self) -> ComposeResult:
        """The widgets between title and command."""
        yield from ()

    def show_title(self, *crumbs: str) -> None:
        """Show where one is: `Tunedeck › New launch › Config`."""
        parts: list[str | tuple[str, str]] = [("Tunedeck", "bold $primary")]
        for crumb in crumbs:
            parts += [(" › ", "$text-muted"), strip_controls(crumb).replace("\n", " ")]
        if self.wizard.read_only:
            parts.append(("  read-only", "bold $warning"))
        self.query_one("#title", Static).update(Content.assemble(*parts))

    def show_command(self, text: str) -> None:
        """Show the command that does the same thing."""
        self.command_line = text
        words = Content.assemble(("$ ", "$text-muted"), strip_controls(text).replace("\n", " "))
        self.query_one("#command", Static).update(words)

    def action_copy_command(self) -> None:
        """Copy the command; terminals without OSC 52 still show it."""
        self.app.copy_to_clipboard(self.command_line)
        self.wizard.say(f"Copied: {self.command_line}")
