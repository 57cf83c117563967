"""The third stage: where it runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ...core.findings import Finding
from ...core.inventory import inventory_of, tables_of
from ...core.profiles import ProfileLook, Profiles, look_at_profiles
from ..background import begin
from ..words import safe
from .environment_rows import finding_lines, finding_row, profile_row, value_lines
from .stage import Chosen, StageView


class Looked(Message):
    """The profiles there are."""

    def __init__(self, profiles: Profiles) -> None:
        super().__init__()
        self.profiles = profiles


class Counted(Message):
    """What a backend has now."""

    def __init__(self, name: str, found: Mapping[str, Any]) -> None:
        super().__init__()
        self.name, self.found = name, found


class Mended(Message):
    """A finding's mend was made; the words say what changed."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words


class EnvironmentStage(StageView):
    """The profiles of the env files that were found, with their origin and what is wrong."""

    HELP = (
        "Choose where it runs. 'local' is this machine and always there; the others come from the "
        "env files that are named above. What is wrong with the marked one stands below the list "
        "with its line: enter on a finding edits its key, x makes its mend where it is mechanical. "
        "e edits the profile, g makes an env file, i asks the backend what it has free now."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "next", "Next", id="environment.next", tooltip="On to the review"),
        Binding("e", "edit", "Edit", id="environment.edit", tooltip="Set the profile's keys"),
        Binding("g", "generate", "New", id="environment.new", tooltip="Make an env file"),
        Binding("x", "mend", "Fix", id="environment.fix", tooltip="Make the finding's mend"),
        Binding("i", "inventory", "Free", id="environment.inventory", tooltip="What is free there"),
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
        self._profiles: Profiles | None = None

    def compose(self) -> ComposeResult:
        """Files, profiles, findings, what there is to say of the marked one."""
        yield Static(id="env-files", markup=False)
        yield OptionList(id="profiles", markup=False)
        yield OptionList(id="profile-findings", markup=False)
        with VerticalScroll(id="profile-about"):
            yield Static(id="profile-text", markup=False)

    def show(self) -> None:
        """Read the env files in a thread."""
        selection = self.walk.selection

        def work(_stop: threading.Event) -> None:
            self.post_message(Looked(look_at_profiles(selection.cwd, selection.env_file)))

        begin(self, work)

    def take_focus(self) -> None:
        """The profiles are where one begins."""
        self.query_one("#profiles").focus()

    @on(Looked)
    def _list(self, message: Looked) -> None:
        before = self._marked
        self._profiles = message.profiles
        files = ", ".join(str(path) for path in message.profiles.files)
        words = files or f"{message.profiles.reason}; g makes an env file"
        self.query_one("#env-files", Static).update(
            Content.assemble(("env files ", "$text-muted"), safe(words))
        )
        options = self.query_one("#profiles", OptionList)
        width = self.app.size.width - 6
        options.set_options(
            Option(profile_row(profile, width), id=profile.name)
            for profile in message.profiles.profiles
        )
        names = [profile.name for profile in message.profiles.profiles]
        chosen = before.name if before else self.walk.selection.profile
        options.highlighted = names.index(chosen) if chosen in names else 0

    @property
    def _marked(self) -> ProfileLook | None:
        option = self.query_one("#profiles", OptionList).highlighted_option
        return self._find(option.id) if option else None

    def _find(self, name: str | None) -> ProfileLook | None:
        known = self._profiles.profiles if self._profiles else ()
        return next((profile for profile in known if profile.name == name), None)

    @property
    def _finding(self) -> Finding | None:
        """The marked finding of the marked profile."""
        profile = self._marked
        at = self.query_one("#profile-findings", OptionList).highlighted
        if profile is None or at is None or at >= len(profile.findings):
            return None
        return profile.findings[at]

    @on(OptionList.OptionHighlighted, "#profiles")
    def _explain(self) -> None:
        profile = self._marked
        if profile is None:
            return
        self.walk.show_profile_command(profile.name)
        findings = self.query_one("#profile-findings", OptionList)
        findings.set_options(Option(finding_row(one)) for one in profile.findings)
        findings.display = bool(profile.findings)
        findings.highlighted = 0 if profile.findings else None
        self._describe()

    @on(OptionList.OptionHighlighted, "#profile-findings")
    def _describe(self) -> None:
        """The marked finding with its line, then what the profile resolves to."""
        if (profile := self._marked) is not None:
            lines = finding_lines(self._finding) + value_lines(profile)
            self.query_one("#profile-text", Static).update(Content("\n").join(lines))

    @on(OptionList.OptionSelected, "#profiles")
    def _choose(self, event: OptionList.OptionSelected) -> None:
        name = event.option.id or "local"
        self.post_message(Chosen(replace(self.walk.selection, profile=name), "review"))

    @on(OptionList.OptionSelected, "#profile-findings")
    def _edit_found(self) -> None:
        finding = self._finding
        self._open_profile(finding.key if finding else None)

    def action_next(self) -> None:
        """On with the marked profile."""
        self.query_one("#profiles", OptionList).action_select()

    def action_reload(self) -> None:
        """Read the env files again."""
        self.show()

    def action_edit(self) -> None:
        """Set keys of the marked profile."""
        self._open_profile(None)

    def go_to(self, key: str) -> None:
        """Open the profile that was chosen at a key."""
        self._open_profile(key, self.walk.selection.profile)

    def _open_profile(self, key: str | None, name: str | None = None) -> None:
        profile = self._marked
        name = name or (profile.name if profile else None)
        if name is None:
            self.walk.wizard.say("Mark a profile first.")
            return
        if profile is not None and profile.name == name and not profile.place.file:
            self.walk.wizard.say(f"'{name}' is built in: g makes an env file that defines it anew.")
            return
        from ..screens.profile import ProfileScreen

        selection = self.walk.selection
        self.app.push_screen(ProfileScreen(name, selection.cwd, selection.env_file, key))

    def action_generate(self) -> None:
        """Make an env file with the site's values."""
        from ..screens.env_file import EnvFileScreen

        self.app.push_screen(EnvFileScreen(self.walk.selection.cwd))

    def action_mend(self) -> None:
        """Make the marked finding's mend, or the first one that can be made."""
        profile = self._marked
        if profile is None or not self.walk.wizard.may_change("Mending"):
            return
        chosen = [self._finding, *profile.findings]
        mendable = next((one for one in chosen if one and one.fix and one.fix.edit), None)
        if mendable is None:
            none = "None of this can be mended without you: enter on it edits its key."
            self.walk.wizard.say(none if profile.findings else "Nothing is wrong with it.")
            return
        finding = mendable

        def work(_stop: threading.Event) -> None:
            from ...core.env.mend import mend

            for one in mend([finding]):
                one.write()
                words = [line for line in one.diff.splitlines() if line[:1] in "+-"][2:]
                self.post_message(Mended("\n".join([f"Mended {one.path.name}:", *words])))

        begin(self, work)

    @on(Mended)
    def _say_mended(self, message: Mended) -> None:
        self.walk.wizard.say(message.words)
        self.show()

    def action_inventory(self) -> None:
        """Ask the marked profile's backend what it has now."""
        profile = self._marked
        if profile is None or not profile.executor:
            self.walk.wizard.say("This profile names no executor that could be asked.")
            return
        name, executor, values = profile.name, profile.executor, profile.values
        self.walk.show_command(f"tunedeck queue {name}")
        self.walk.begin_errand(
            f"Asking {name}",
            lambda: inventory_of(executor, values),
            lambda found: Counted(name, found),
            owner=self,
        )

    @on(Counted)
    def _show_inventory(self, message: Counted) -> None:
        profile = self._marked
        if profile is None or profile.name != message.name:
            return
        lines = [Content.assemble((f"{safe(message.name)} has now", "bold"))]
        for table in tables_of(message.found):
            if table.title:
                lines.append(Content.styled(f"\n{table.title}", "bold $primary"))
            lines += [Content(f"  {safe(text)}") for text in table.lines()]
        self.query_one("#profile-text", Static).update(Content("\n").join(lines))
        self.query_one("#profile-about").scroll_home(animate=False)
