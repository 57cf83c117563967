"""The third stage: where it runs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ...core.findings import Finding
from ...core.profiles import ProfileLook, Profiles, look_at_profiles
from ..background import Failed, begin
from ..words import safe, trouble
from .environment_free import Counted, Free
from .environment_list import ProfileList
from .environment_mend import Mended, mend_one
from .environment_profile import Renamed, ask_delete, ask_rename, edit
from .environment_rows import file_words, finding_lines, finding_row, value_lines
from .stage import Chosen, StageView


class Looked(Message):
    """The profiles there are."""

    def __init__(self, profiles: Profiles) -> None:
        super().__init__()
        self.profiles = profiles


class EnvironmentStage(StageView):
    """The profiles of the env files that were found, with their origin and what is wrong."""

    HELP = (
        "Choose where it runs. Those made for the step come first; 'local' is this machine and "
        "always there; the others come from the env files that are named above, / finds one. What "
        "is wrong with the marked one, or with what it inherits, stands below the list with its "
        "line: enter on a finding edits its key, x makes its mend where it is mechanical. e edits "
        "the profile, f2 renames it, delete takes it out; g makes an env file, i asks the backend "
        "what it has free now."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "next", "Next", id="environment.next", tooltip="On to the review"),
        Binding("e", "edit", "Edit", id="environment.edit", tooltip="Set the profile's keys"),
        Binding("g", "generate", "New", id="environment.new", tooltip="Make an env file"),
        Binding("x", "mend", "Fix", id="environment.fix", tooltip="Make the finding's mend"),
        Binding(
            "slash", "search", "Search", show=False, id="environment.search", tooltip="Find one"
        ),
        Binding("i", "inventory", "Free", id="environment.inventory", tooltip="What is free there"),
        Binding(
            "f2",
            "rename",
            "Rename",
            show=False,
            id="environment.rename",
            tooltip="Give the profile another name",
        ),
        Binding(
            "delete",
            "delete",
            "Delete",
            show=False,
            id="environment.delete",
            tooltip="Take the profile out of its file",
        ),
        Binding(
            "r",
            "reload",
            "Reload",
            show=False,
            id="environment.reload",
            tooltip="Read the files again",
        ),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._free = Free()
        self._known_before: set[str] | None = None

    def compose(self) -> ComposeResult:
        """Files, profiles, findings, what there is to say of the marked one."""
        yield Static(id="env-files", markup=False)
        yield Input(placeholder="/ search by name, executor or file", id="profile-search")
        yield ProfileList(id="profiles", markup=False)
        yield OptionList(id="profile-findings", markup=False)
        with VerticalScroll(id="profile-about"):
            yield Static(id="profile-text", markup=False)

    def on_mount(self) -> None:
        """The search line comes when it is asked for."""
        self.query_one("#profile-search").display = False

    @property
    def ready(self) -> bool:
        """Whether the env files have been read."""
        return self._profiles.profiles is not None

    def show(self) -> None:
        """Read the env files in a thread."""
        selection = self.walk.selection

        def work(_stop: threading.Event) -> None:
            self.post_message(Looked(look_at_profiles(selection.cwd, selection.env_file)))

        begin(self, work)

    def take_focus(self) -> None:
        """The profiles are where one begins; a search is over."""
        search = self.query_one("#profile-search", Input)
        search.value, search.display = "", False
        self._profiles.focus()

    @on(Looked)
    def _take(self, message: Looked) -> None:
        before = self._marked
        self._profiles.profiles = message.profiles
        none = f"none yet: g makes one   ({message.profiles.reason})"
        words = file_words(message.profiles) or none
        self.query_one("#env-files", Static).update(
            Content.assemble(("env files ", "$text-muted"), safe(words))
        )
        first = before.name if before else self._profiles.unread or self.walk.selection.profile
        self._list(self._newest() or first)

    def _newest(self) -> str | None:
        """The first profile of a file that has just been made, one for the step before others."""
        if self._known_before is None:
            return None
        name = self._profiles.newest(self._known_before, self.walk.selection.step)
        if name is not None:
            self._known_before = None
        return name

    def _list(self, wanted: str | None) -> None:
        """List what fits what is typed, with a profile marked if it is among them."""
        if self._profiles.profiles is None:
            return
        typed = self.query_one("#profile-search", Input).value
        step, width = self.walk.selection.step, self.app.size.width - 6
        if not self._profiles.narrow(step, typed, wanted, width):
            self._explain()

    @property
    def told_at(self) -> dict[str, float]:
        """When each profile's place said last what it has, as `time.time()`."""
        return self._free.told_at

    @on(Input.Changed, "#profile-search")
    def _typed(self) -> None:
        marked = self._marked
        self._list(marked.name if marked else self.walk.selection.profile)

    @on(Input.Submitted, "#profile-search")
    def _found(self) -> None:
        self._profiles.focus()

    def action_search(self) -> None:
        """Type to narrow the profiles down; esc shows all again."""
        search = self.query_one("#profile-search", Input)
        search.display = True
        search.focus()

    @property
    def _profiles(self) -> ProfileList:
        return self.query_one(ProfileList)

    @property
    def _marked(self) -> ProfileLook | None:
        return self._profiles.marked_profile

    @property
    def _finding(self) -> Finding | None:
        """The marked finding of the marked profile, or the one about a file that is marked."""
        profile = self._marked
        if profile is None:
            return self._profiles.marked_finding
        at = self.query_one("#profile-findings", OptionList).highlighted
        return profile.findings[at] if at is not None and at < len(profile.findings) else None

    @on(OptionList.OptionHighlighted, "#profiles")
    def _explain(self) -> None:
        profile = self._marked
        if profile is not None and self._free.concerns(profile.name):
            self.walk.show_command(f"tunedeck queue {profile.name}")
        elif profile is not None:
            self.walk.show_profile_command(profile.name)
        elif self._finding is not None:
            self.walk.show_command("tunedeck env check")
        own = profile.findings if profile else ()
        for findings in self.query("#profile-findings").results(OptionList):
            findings.set_options(Option(finding_row(one)) for one in own)
            findings.display = bool(own)
            findings.highlighted = 0 if own else None
        self._describe()

    @on(OptionList.OptionHighlighted, "#profile-findings")
    def _describe(self) -> None:
        """The marked finding with its line, what the profile resolves to, what the place has.

        What the place has comes first from when it was asked for until something else is marked.
        """
        profile, lines = self._marked, finding_lines(self._finding)
        if profile is None:
            self._free.first = None
            if self._profiles.profiles is not None and not lines:
                lines = [Content("No profile fits what is typed. esc shows all again.")]
        else:
            first = (None, *profile.findings[:1])
            if self._free.first != profile.name or self._finding not in first:
                self._free.first = None
            free = self._free.lines(profile.name, self.app.size.width - 6)
            lines = [*free, *lines] if self._free.first else [*lines, *free]
            lines += value_lines(profile)
        self.query_one("#profile-text", Static).update(Content("\n").join(lines))
        self.query_one("#profile-about").scroll_home(animate=False)

    @on(Failed)
    def _keep_failure(self, message: Failed) -> None:
        """What a place could not be asked for stays to be read, after the note has gone."""
        if self._free.failed(trouble(message.error)):
            self._describe()

    @on(OptionList.OptionSelected, "#profiles")
    def _choose(self, event: OptionList.OptionSelected) -> None:
        name = event.option.id or "local"
        if self._profiles.profile_named(name) is None:
            self.wizard.say("Mend the file in an editor, then r reads it again.")
        else:
            self.post_message(Chosen(replace(self.walk.selection, profile=name), "review"))

    @on(OptionList.OptionSelected, "#profile-findings")
    def _edit_found(self) -> None:
        finding = self._finding
        if finding is not None and finding.profile is not None:
            self._edit_at(finding.profile, finding.key)

    def action_next(self) -> None:
        """On with the marked profile."""
        self._profiles.action_select()

    def action_reload(self) -> None:
        """Read the env files again."""
        self.show()

    def action_edit(self) -> None:
        """Set keys of the marked profile."""
        if profile := self._marked_or_said:
            edit(self, profile, profile.name, None)

    def action_rename(self) -> None:
        """Give the marked profile another name."""
        if profile := self._marked_or_said:
            ask_rename(self, profile)

    def action_delete(self) -> None:
        """Ask, then take the marked profile out of its file."""
        if profile := self._marked_or_said:
            ask_delete(self, profile)

    @property
    def _marked_or_said(self) -> ProfileLook | None:
        """The marked profile; where there is none, that is said."""
        if self._marked is None:
            self.wizard.say("Mark a profile first.")
        return self._marked

    def go_to(self, key: str) -> None:
        """Open the profile that was chosen at a key."""
        self._edit_at(self.walk.selection.profile, key)

    def _edit_at(self, name: str, key: str | None) -> None:
        edit(self, self._profiles.profile_named(name), name, key)

    @on(Renamed)
    def _say_renamed(self, message: Renamed) -> None:
        self.wizard.say(message.words)
        if message.name == self.walk.selection.profile:
            profile = message.new or "local"
            self.post_message(Chosen(replace(self.walk.selection, profile=profile)))
        else:
            self.show()

    def action_generate(self) -> None:
        """Make an env file with the site's values."""
        from ..screens.env_file import EnvFileScreen

        self._known_before = set(self._profiles.names)
        walk = self.walk
        form = EnvFileScreen(walk.selection.cwd, walk.draft.answers, walk.keep_answers)
        self.app.push_screen(form)

    def action_mend(self) -> None:
        """Make the marked finding's mend, or the first one that can be made."""
        mend_one(self, self._marked, self._finding)

    @on(Mended)
    def _say_mended(self, message: Mended) -> None:
        self.wizard.say(message.words)
        self.show()

    def action_inventory(self) -> None:
        """Ask the marked profile's backend what it has now."""
        profile = self._marked
        if profile is None or not profile.executor:
            self.wizard.say("This profile names no executor that could be asked.")
            return
        self._free.ask(self, profile)

    @on(Counted)
    def _take_inventory(self, message: Counted) -> None:
        self._free.took(message)
        profile = self._marked
        if profile is None or profile.name != message.name:
            self.wizard.say(f"{safe(message.name)} has answered: mark it to see what is free.")
            return
        self._free.first = profile.name
        self._describe()
