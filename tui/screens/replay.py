"""A saved launch: what it is, what has changed since, and on to its review."""

from __future__ import annotations

import threading
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from ...core.drafts import Draft, Stage
from ...core.errors import TunedeckError
from ...core.replays.lock import Change
from ...core.replays.replay import Replay, changes_since, frozen, load_replay
from ...core.resolve import resolve
from ...core.selection import Selection
from ...core.text import counted, strip_controls
from ..background import begin
from ..words import foreseen, safe, trouble
from .page import Page


class Compared(Message):
    """What a replay comes to now, held against its lock."""

    def __init__(self, changes: list[Change], error: TunedeckError | None) -> None:
        super().__init__()
        self.changes, self.error = changes, error


class Held(Message):
    """The selection with everything put back to what was locked."""

    def __init__(self, selection: Selection) -> None:
        super().__init__()
        self.selection = selection


class ReplayScreen(Page):
    """Shows a replay, and goes on with it.

    Args:
        name: the replay's.

    Raises:
        TunedeckError: if it cannot be read.
    """

    HELP = (
        "A saved launch. Below is what resolves to something else now than when it was saved. "
        "enter reviews it as it is now, f with the values that were saved, e changes it first."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "walk('review')", "Review", id="replay.go", tooltip="As it is now"),
        Binding("e", "walk('config')", "Edit", id="replay.edit", tooltip="Change values first"),
        Binding("f", "freeze", "Frozen", id="replay.frozen", tooltip="With the saved values"),
        Binding("escape", "app.pop_screen", "Back", id="replay.back"),
    ]

    def __init__(self, name: str) -> None:
        super().__init__()
        self._replay: Replay = load_replay(name)
        self._changes: list[Change] = []

    def body(self) -> ComposeResult:
        """One page."""
        with VerticalScroll(id="replay-page"):
            yield Static(id="replay-text", markup=False)

    def on_mount(self) -> None:
        """Show what the file says; compare in a thread."""
        self.show_title("Saved launch", self._replay.name)
        self.show_command(f"tunedeck replay {self._replay.name}")
        self.query_one("#replay-page").focus()
        self._draw("Comparing with what was saved …")
        replay = self._replay

        def work(_stop: threading.Event) -> None:
            try:
                changes = changes_since(replay, resolve(replay.selection()))
                self.post_message(Compared(changes, None))
            except (TunedeckError, OSError) as error:
                self.post_message(Compared([], foreseen(error)))

        begin(self, work)

    @on(Compared)
    def _show(self, message: Compared) -> None:
        self._changes = message.changes
        if message.error is not None:
            self._draw(f"✗ It cannot be launched as things are: {trouble(message.error)}")
        elif self._replay.ingredients.lock is None:
            self._draw("It has no lock: everything is taken as it is now.")
        elif not message.changes:
            self._draw("✓ Nothing has changed since it was saved.")
        else:
            lines = "\n".join(f"  {change}" for change in message.changes)
            self._draw(f"! {counted(len(message.changes), 'value')} changed since:\n{lines}")

    def _draw(self, words: str) -> None:
        saved = self._replay.ingredients
        rows = {
            "about": saved.description,
            "step": saved.step,
            "config": saved.config,
            "changed": " ".join(saved.overrides),
            "profile": saved.profile,
            "file": f"{self._replay.file} ({self._replay.source})",
        }
        parts: list[str | tuple[str, str]] = []
        for label, value in rows.items():
            if value:
                parts += [(f"{label:<9}", "$text-muted"), f"{safe(value)}\n"]
        self.query_one("#replay-text", Static).update(
            Content.assemble(*parts, "\n", strip_controls(words))
        )

    def action_walk(self, stage: Stage) -> None:
        """On to a stage of the walk with what was saved."""
        try:
            self._go(self._replay.selection(), stage)
        except TunedeckError as error:
            self.wizard.say(trouble(error), severity="error")

    def action_freeze(self) -> None:
        """On to the review with every changed value put back."""
        replay, changes = self._replay, self._changes

        def work(_stop: threading.Event) -> None:
            self.post_message(Held(frozen(replay, replay.selection(), changes)))

        begin(self, work)

    @on(Held)
    def _go_frozen(self, message: Held) -> None:
        self._go(message.selection, "review")

    def _go(self, selection: Selection, stage: Stage) -> None:
        from .launch import LaunchScreen

        self.app.switch_screen(LaunchScreen(Draft.begin(selection, stage), replay=self._replay))
