"""One env profile as a form: what is set, where from, and what may be set besides."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input, OptionList, Static

from ...core.env.edit import Edited, ProfileRow
from ...core.env.load import EnvFiles
from ...core.errors import TunedeckError
from ...core.findings import Finding
from ...core.text import counted, strip_controls
from ..widgets.lists import marked_id, refill
from ..words import safe, trouble
from .ask import Confirm
from .page import Page
from .profile_files import NotWritten, Read, Written, read, write
from .profile_rows import about_key, head_line, key_options
from .profile_value import ask_value


class ProfileScreen(Page):
    """Sets keys of a profile; nothing is written before w.

    Args:
        name: the profile.
        cwd: where env files are looked for.
        env_file: an env file to use instead of those that are found.
        key: the key to mark at first.
    """

    HELP = (
        "The keys of one profile: first those that are set, with the file and line they come from, "
        "then all that its executor knows. enter sets the marked key in this profile, backspace "
        "undoes that, w writes the file; comments and everything else in it stay. b goes to the "
        "profile that a key is inherited from, to change it there for all that extend it."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "write", "Write", id="profile.write", tooltip="Write the env file"),
        Binding("slash", "search", "Search", id="profile.search", tooltip="Find a key"),
        Binding("b", "base", "Base", id="profile.base", tooltip="Where the key is inherited from"),
        Binding("backspace,delete", "reset", "Undo", id="profile.reset", tooltip="Undo the change"),
        Binding("escape", "back", "Back", id="profile.back"),
    ]

    def __init__(
        self, name: str, cwd: Path, env_file: Path | None = None, key: str | None = None
    ) -> None:
        super().__init__()
        self._profile, self._cwd, self._env_file, self._wanted = name, cwd, env_file, key
        self._files: EnvFiles | None = None
        self._rows: tuple[ProfileRow, ...] = ()
        self._edited: Edited | None = None
        self.changes: dict[str, str] = {}
        self.ready = False
        """Whether what is shown, and would be written, is what is changed now."""

    def body(self) -> ComposeResult:
        """What is changed, search, keys, what there is to know of the marked one."""
        yield Static(id="profile-head", markup=False)
        yield Input(placeholder="/ search keys", id="key-search")
        yield OptionList(id="keys", markup=False)
        yield Static(id="key-about", markup=False)

    def on_mount(self) -> None:
        """Read in a thread."""
        self.show_title("Profile", self._profile)
        self.query_one("#keys").focus()
        self._read()

    def _read(self) -> None:
        self.ready = False
        name, env_file, changes = self._profile, self._env_file, self.changes
        read(self, name, self._cwd, env_file, changes)
        words = ["set", name, *changes.values()] if changes else ["show", name]
        file = ["--env-file", str(env_file)] if env_file else []
        self.show_command(shlex.join(["tunedeck", "env", *words, *file]))

    @on(Read)
    def _take(self, message: Read) -> None:
        if message.changes != self.changes:  # something else was changed since
            return
        self._files, self._rows, self._edited = message.files, message.rows, message.edited
        self._list()
        self.ready = True

    def on_failed(self) -> None:
        """The files cannot be read, which is told; one can still leave."""
        self.ready = True

    @property
    def _findings(self) -> tuple[Finding, ...]:
        return self._edited.findings if self._edited else ()

    def _list(self) -> None:
        keys = self.query_one("#keys", OptionList)
        at = self._wanted or marked_id(keys) or ""
        around = next((row.key for row in self._rows if at.startswith(f"{row.key}.")), None)
        typed, width = self.query_one("#key-search", Input).value, self.size.width - 4
        options = key_options(self._rows, self.changes, self._findings, typed, width)
        refill(keys, options, at, around)  # a finding may be about an item inside the key
        self._wanted = None
        self._explain()
        head = head_line(self.changes, self._findings)
        self.query_one("#profile-head", Static).update(head)

    @property
    def _row(self) -> ProfileRow | None:
        key = marked_id(self.query_one("#keys", OptionList))
        return next((row for row in self._rows if row.key == key), None)

    @on(OptionList.OptionHighlighted)
    def _explain(self) -> None:
        row = self._row
        about = "" if row is None else about_key(row, self._findings)
        self.query_one("#key-about", Static).update(about)

    @on(Input.Changed)
    def _typed(self) -> None:
        self._list()

    @on(Input.Submitted)
    def _to_list(self) -> None:
        self.query_one("#keys").focus()

    @on(OptionList.OptionSelected)
    def _edit(self) -> None:
        row, files = self._row, self._files
        if row is None or files is None or not self.wizard.may_change("Editing a profile"):
            return
        key = row.key

        def change(override: str) -> None:
            self.changes[key] = override
            self._read()

        ask_value(self, files, self._profile, row, self.changes, change)

    def action_base(self) -> None:
        """Go to the profile that the marked key is inherited from, to change it for all."""
        row = self._row
        layer = row.sourced.origin.layer if row is not None and row.sourced else ""
        name = layer.removeprefix("profile ")
        if row is None or name in (layer, self._profile):
            self.wizard.say("This key is inherited from no other profile.")
            return
        self.app.push_screen(ProfileScreen(name, self._cwd, self._env_file, row.key))

    def on_screen_resume(self) -> None:
        """What this profile inherits may have been changed on the screen above."""
        if self._files is not None:
            self._read()

    def action_reset(self) -> None:
        """Undo the change of the marked key."""
        row = self._row
        if row is None or row.key not in self.changes:
            self.wizard.say("Nothing to undo: this key is as the file has it.")
            return
        del self.changes[row.key]
        self._read()

    def action_search(self) -> None:
        """Type to find a key."""
        self.query_one("#key-search").focus()

    def action_write(self) -> None:
        """Write the file with what was changed."""
        edited = self._edited
        if edited is None or not self.changes:
            self.wizard.say("Nothing to write: enter on a key changes it.")
            return
        if not self.wizard.may_change("Writing"):
            return
        write(self, edited)

    @on(NotWritten)
    def _keep(self, message: NotWritten) -> None:
        """What was changed here stays; it is laid over the file as it is now."""
        self._read()
        what = "Your changes are kept here, over what the file says now: w writes them."
        changed = isinstance(message.error, TunedeckError)
        words = f"{message.error}\n{what}" if changed else trouble(message.error)
        self.wizard.say(strip_controls(words), severity="error")

    @on(Written)
    def _written(self, message: Written) -> None:
        self.changes.clear()
        self.wizard.say(f"Wrote {safe(message.path)}.")
        self._read()

    def action_back(self) -> None:
        """Leave; what is not written is asked about first."""
        search = self.query_one("#key-search", Input)
        if search.value or search.has_focus:
            search.value = ""
            self.query_one("#keys").focus()
        elif self.changes:
            question = (
                f"Leave {counted(len(self.changes), 'change')} to '{self._profile}' unwritten?"
            )
            self.app.push_screen(Confirm(question, "Leave"), self._leave_if)
        else:
            self.app.pop_screen()

    def _leave_if(self, sure: bool | None) -> None:
        if sure:
            self.app.pop_screen()
