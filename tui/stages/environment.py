"""The third stage: where it runs."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ...core.profiles import ProfileLook, Profiles, look_at_profiles
from ..background import begin
from ..words import cell, finding_line, safe
from .stage import Chosen, StageView


class Looked(Message):
    """The profiles there are."""

    def __init__(self, profiles: Profiles) -> None:
        super().__init__()
        self.profiles = profiles


class Counted(Message):
    """What a backend has now."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__()
        self.name, self.text = name, text


class EnvironmentStage(StageView):
    """The profiles of the env files that were found, with their origin and what is wrong."""

    HELP = (
        "Choose where it runs. 'local' is this machine and always there; the others come from the "
        "env files that are named above. Findings stand below with their line. i asks the backend "
        "what it has free now."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "next", "Next", id="environment.next", tooltip="On to the review"),
        Binding("i", "inventory", "Inventory", id="environment.inventory", tooltip="What is free"),
        Binding("r", "reload", "Reload", id="environment.reload", tooltip="Read the files again"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._profiles: Profiles | None = None

    def compose(self) -> ComposeResult:
        """Files, profiles, what there is to say of the marked one."""
        yield Static(id="env-files", markup=False)
        yield OptionList(id="profiles", markup=False)
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
        self._profiles = message.profiles
        files = ", ".join(str(path) for path in message.profiles.files)
        self.query_one("#env-files", Static).update(
            Content.assemble(("env files ", "$text-muted"), safe(files or message.profiles.reason))
        )
        options = self.query_one("#profiles", OptionList)
        width = self.app.size.width - 6
        options.set_options(
            Option(_line(profile, width), id=profile.name) for profile in message.profiles.profiles
        )
        names = [profile.name for profile in message.profiles.profiles]
        chosen = self.walk.selection.profile
        options.highlighted = names.index(chosen) if chosen in names else 0

    def _find(self, name: str | None) -> ProfileLook | None:
        known = self._profiles.profiles if self._profiles else ()
        return next((profile for profile in known if profile.name == name), None)

    @on(OptionList.OptionHighlighted)
    def _explain(self, event: OptionList.OptionHighlighted) -> None:
        if profile := self._find(event.option.id):
            self.query_one("#profile-text", Static).update(_about(profile))

    @on(OptionList.OptionSelected)
    def _choose(self, event: OptionList.OptionSelected) -> None:
        name = event.option.id or "local"
        self.post_message(Chosen(replace(self.walk.selection, profile=name), "review"))

    def action_next(self) -> None:
        """On with the marked profile."""
        self.query_one("#profiles", OptionList).action_select()

    def action_reload(self) -> None:
        """Read the env files again."""
        self.show()

    def action_inventory(self) -> None:
        """Ask the marked profile's backend what it has now."""
        option = self.query_one("#profiles", OptionList).highlighted_option
        profile = self._find(option.id if option else None)
        if profile is None or not profile.executor:
            self.walk.wizard.say("This profile names no executor that could be asked.")
            return
        from ...core.backends.base import load_backend

        name, executor, values = profile.name, profile.executor, dict(profile.values)
        self.walk.wizard.say(f"Asking {name} …")

        def work(_stop: threading.Event) -> None:
            import yaml

            found = asyncio.run(load_backend(executor, values).inventory(values))
            self.post_message(Counted(name, yaml.safe_dump(found, sort_keys=False)))

        begin(self, work)

    @on(Counted)
    def _show_inventory(self, message: Counted) -> None:
        option = self.query_one("#profiles", OptionList).highlighted_option
        if option is not None and option.id == message.name:
            from ...core.text import strip_controls

            text = Content.assemble((f"{safe(message.name)} has now\n", "bold"))
            self.query_one("#profile-text", Static).update(text + strip_controls(message.text))


def _line(profile: ProfileLook, width: int) -> Content:
    errors = sum(finding.severity == "error" for finding in profile.findings)
    mark, color = ("✗", "$error") if errors else ("✓", "$success")
    values = profile.values
    shape = f"{values.get('nodes') or 1} node(s)"
    gpus = values.get("gpus_per_node")
    shape += f" × {gpus} GPU(s)" if gpus else ""
    place = str(profile.place) if profile.place.file else "built in"
    return Content.assemble(
        (f"{mark} ", color),
        (cell(profile.name, 24) + " ", "bold"),
        cell(profile.executor or "no executor", 10) + " ",
        (cell(shape, 20), "$text-muted"),
        (cell(place.rpartition("/")[2], max(width - 60, 8)), "$text-muted"),
    )


def _about(profile: ProfileLook) -> Content:
    parts = [finding_line(finding) for finding in profile.findings]
    for key, sourced in profile.explained.items():
        parts.append(
            Content.assemble(
                (f"{key} ", "bold"),
                safe(sourced.value),
                (f"  {safe(sourced.origin)}", "$text-muted"),
            )
        )
    return Content("\n").join(parts)
