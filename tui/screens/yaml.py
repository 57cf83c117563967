"""The whole config as YAML, with the lines that were changed."""

from __future__ import annotations

import shlex
import threading
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from ...core.choices import Form, command_of
from ...core.config_view import YamlLine, yaml_view
from ...core.text import strip_controls
from ..background import begin
from .page import Page

if TYPE_CHECKING:
    from ...core.catalog import Catalog
    from ...core.selection import Selection

_STYLES = {" ": "", "+": "$success bold", "-": "$error"}


class Viewed(Message):
    """The lines of the config."""

    def __init__(self, lines: tuple[YamlLine, ...]) -> None:
        super().__init__()
        self.lines = lines


class YamlScreen(Page):
    """Shows a config as YAML.

    Args:
        form: the config.
        selection: what was chosen, its changes among it.
        catalog: where its step is.
    """

    HELP = (
        "The config that a launch would use, as YAML. Lines that were changed begin with +, and "
        "what stood there before with -. m shows those alone, with where they are; c copies the "
        "config as it is now."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "changed", "Changed", id="yaml.changed", tooltip="Only what is changed"),
        Binding("c", "copy", "Copy", id="yaml.copy", tooltip="Copy the config"),
        Binding("escape,y", "app.pop_screen", "Back", id="yaml.back"),
    ]

    def __init__(self, form: Form, selection: Selection, catalog: Catalog) -> None:
        super().__init__()
        self._form, self._selection, self._catalog = form, selection, catalog
        self._lines: tuple[YamlLine, ...] = ()
        self._only = False

    def body(self) -> ComposeResult:
        """One page."""
        with VerticalScroll(id="yaml-page"):
            yield Static(id="yaml-text", markup=False)

    def on_mount(self) -> None:
        """Compare in a thread."""
        self.show_title("New launch", "Config as YAML")
        self.show_command(shlex.join(command_of(self._selection, "--dry-run")))
        self.query_one("#yaml-page").focus()
        form, selection, catalog = self._form, self._selection, self._catalog

        def work(_stop: threading.Event) -> None:
            self.post_message(Viewed(yaml_view(form, selection, catalog)))

        begin(self, work)

    @on(Viewed)
    def _show(self, message: Viewed) -> None:
        self._lines = message.lines
        self._draw()

    def _draw(self) -> None:
        number, parts = 0, []
        for line in self._lines:
            number += line.mark != "-"
            if self._only and line.mark == " ":
                continue
            at = f"{number:>4} " if line.mark != "-" else "     "
            text = f"{line.mark} {strip_controls(line.text)}"
            parts.append(Content.assemble((at, "$text-muted"), (text, _STYLES[line.mark])))
        if self._only and not parts:
            parts.append(Content("Nothing is changed."))
        self.query_one("#yaml-text", Static).update(Content("\n").join(parts))

    def action_changed(self) -> None:
        """Show only what is changed, or everything again."""
        self._only = not self._only
        self._draw()

    def action_copy(self) -> None:
        """Copy the config as it is now."""
        now = "\n".join(line.text for line in self._lines if line.mark != "-")
        self.app.copy_to_clipboard(now + "\n")
        self.wizard.say("Copied the config.")
