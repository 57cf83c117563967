"""Looking for a file of rows, or for a model, folder by folder."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ...core.data.browse import Entry, list_folder
from ...core.errors import UsageError
from ...core.locations import assets_dir
from ..background import begin
from ..words import cell, safe, trouble
from .dialog import Dialog

_MARKS = {"folder": "▸", "data": "≡", "model": "◆", "file": " "}


class Listed(Message):
    """What is in a folder; or why that cannot be told."""

    def __init__(self, folder: Path, entries: list[Entry], error: UsageError | None) -> None:
        super().__init__()
        self.folder, self.entries, self.error = folder, entries, error


class Browse(Dialog[str]):
    """Asks for a path: typed, or found by going through folders.

    Args:
        title: what is looked for.
        value: what is there at first.
        folder: where to begin, and what a path is given relative to.
        models: look for folders of models instead of files of rows.
    """

    HELP = (
        "Enter goes into a folder (▸) or takes a file of rows (≡) or a model (◆); left goes up. "
        "What is typed narrows the list down, and is taken as it is where nothing is marked: a "
        "path, a glob or a name on the hub."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back"),
        Binding("down", "move(1)", show=False),
        Binding("up", "move(-1)", show=False),
        Binding("left", "above", "Folder above", show=False, priority=True),
        Binding("ctrl+t", "take", "As typed", show=False),
    ]

    def __init__(self, title: str, value: str, folder: Path, *, models: bool = False) -> None:
        super().__init__()
        self._title, self._value, self._base, self._models = title, value, folder, models
        self._folder = folder
        self._entries: list[Entry] = []

    def compose(self) -> ComposeResult:
        """A line to type in, the folder, and what is in it."""
        with Vertical(id="dialog"):
            yield Input(placeholder="type to narrow down, or a path or a hub id", id="typed")
            yield Static(id="folder", markup=False)
            yield OptionList(id="choices", markup=False)

    def on_mount(self) -> None:
        """Begin in the folder of what is there; one's own lies not among what ships with us."""
        self.entitle(self._title, "enter opens or takes · ← above · ctrl+t as typed · esc leaves")
        given = self._base / Path(self._value).expanduser() if self._value else self._base
        shipped = given.resolve().is_relative_to(assets_dir().resolve())
        self._open(given.parent if given.exists() and not shipped else self._base)
        self.query_one("#typed").focus()

    def _open(self, folder: Path) -> None:
        models = self._models

        def work(_stop: threading.Event) -> None:
            try:
                self.post_message(Listed(folder, list_folder(folder, models=models), None))
            except UsageError as error:
                self.post_message(Listed(folder, [], error))

        begin(self, work)

    @on(Listed)
    def _show(self, message: Listed) -> None:
        if message.error is not None:
            self.query_one("#folder", Static).update(Content(f"✗ {trouble(message.error)}"))
            return
        self._folder, self._entries = message.folder.resolve(), message.entries
        self.query_one("#folder", Static).update(
            Content.styled(f"{safe(self._folder)}", "$text-muted")
        )
        typed = self.query_one("#typed", Input)
        typed.value = ""
        self._narrow("")

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._narrow(event.value)

    def _narrow(self, text: str) -> None:
        room = max(min(self.app.size.width * 9 // 10, 92) - 8, 20)
        first = room * 2 // 3
        found = [one for one in self._entries if text.casefold() in one.path.name.casefold()]
        options = [
            Option(
                Content.assemble(
                    f"{_MARKS[one.what]} ",
                    (cell(one.path.name, first), "bold" if one.what != "folder" else ""),
                    (cell(one.about, room - first), "$text-muted"),
                ),
                id=one.path.name,
            )
            for one in found
        ]
        if not text and self._folder.parent != self._folder:
            options.append(Option(Content.styled("▸ ..  the folder above", "$text-muted"), id=".."))
        if text.strip():
            taken = Content.assemble("  ", cell(text.strip(), first), ("as typed", "$text-muted"))
            options.append(Option(taken, id=f"typed:{text.strip()}"))
        choices = self.query_one("#choices", OptionList)
        choices.set_options(options)
        choices.highlighted = 0 if options else None

    def action_move(self, by: int) -> None:
        """Move the mark while the focus stays where one types."""
        choices = self.query_one("#choices", OptionList)
        (choices.action_cursor_down if by > 0 else choices.action_cursor_up)()

    def action_above(self) -> None:
        """The folder above; within a text that is being typed, a character to the left."""
        typed = self.query_one("#typed", Input)
        if typed.value:
            typed.action_cursor_left()
        else:
            self._open(self._folder.parent)

    def action_take(self) -> None:
        """Take what is typed as it is."""
        if text := self.query_one("#typed", Input).value.strip():
            self.dismiss(text)

    @on(Input.Submitted)
    def _submitted(self) -> None:
        self._choose(self.query_one("#choices", OptionList).highlighted_option)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self._choose(event.option)

    def _choose(self, option: Option | None) -> None:
        if option is None or option.id is None:
            return
        if option.id.startswith("typed:"):
            self.dismiss(option.id.removeprefix("typed:"))
        elif option.id == "..":
            self._open(self._folder.parent)
        else:
            entry = next(one for one in self._entries if one.path.name == option.id)
            if entry.what == "folder":
                self._open(entry.path)
            else:
                self.dismiss(self._given(entry.path))

    def _given(self, path: Path) -> str:
        """A path as one would type it from where the launch starts."""
        try:
            return f"./{path.relative_to(self._base.resolve())}"
        except ValueError:
            return str(path)
