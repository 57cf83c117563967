"""The application: what holds on every screen. Screens show core's answers and decide nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any, ClassVar

from rich.terminal_theme import TerminalTheme
from rich.text import Text
from textual import events
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.markup import escape
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.theme import Theme
from textual.widget import Widget

from ..core.errors import Place, TunedeckError, UsageError
from ..core.ssh.prompts import TerminalPrompter, ask_through
from .background import Broken, Failed, begin
from .colors import legible, terminal_colors
from .keymap import read_keymap
from .prompter import WizardPrompter
from .screens.help import HelpScreen
from .screens.home import HomeScreen
from .screens.jump import JumpScreen
from .screens.too_small import TooSmallScreen, fits
from .settings import keep_theme, read_theme, settings_file
from .theme import THEME
from .typed import TypeAhead
from .words import goes_on, safe, trouble

_END_LIMIT_S = 10
"""How long the wizard may take to end once it was told to; drafts are saved by then anyway."""
_SIZE_CHECK_S = 0.5
"""How often the size of the terminal is compared with what is painted."""


class WizardApp(App[None]):
    """The wizard.

    Args:
        read_only: nothing can be submitted, cancelled or written, and each such key says so.
    """

    TITLE = "Tunedeck"
    CSS_PATH: ClassVar[list[str | PurePath]] = [
        "app.tcss",
        "screens/dialogs.tcss",
        "screens/home.tcss",
        "screens/launch.tcss",
        "screens/pages.tcss",
        "screens/run.tcss",
        "stages/stages.tcss",
    ]
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1,question_mark", "help", "Help", key_display="?", id="app.help"),
        Binding(
            "ctrl+o",
            "jump",
            "Jump",
            show=False,
            id="app.jump",
            tooltip="A letter for every place that can have the focus",
        ),
        Binding("ctrl+q", "leave", "Quit", id="app.quit", tooltip="Runs go on without the wizard"),
        Binding("ctrl+z", "suspend_process", "Suspend", show=False, id="app.suspend"),
    ]

    def __init__(self, *, read_only: bool = False) -> None:
        self._terminal_colors: dict[str, TerminalTheme] = {}
        super().__init__()
        self.read_only = read_only
        self._typed = TypeAhead(self, super().on_event)
        self.register_theme(THEME)
        self._unread: TunedeckError | None = None
        self.theme = self._first_theme()

    def _first_theme(self) -> str:
        """The theme of the last session, where there is one of its name."""
        try:
            name = read_theme()
        except TunedeckError as error:
            self._unread = error
            return THEME.name
        if name is None or name in self.available_themes:
            return name or THEME.name
        self._unread = UsageError(
            f"There is no theme '{safe(name)}'.",
            place=Place(str(settings_file())),
            fix="Choose one in the palette: ctrl+p, Theme.",
        )
        return THEME.name

    async def on_event(self, event: events.Event) -> None:
        """Keys go through what keeps their order; all else as ever."""
        if isinstance(event, events.Key) and not event.is_forwarded:
            await self._typed.take(event)
        else:
            await super().on_event(event)

    def get_css_variables(self) -> dict[str, str]:
        """The theme's variables, with text that can be read on all it stands on."""
        self.theme_variables = legible(super().get_css_variables())
        return self.theme_variables

    @property
    def ansi_theme(self) -> TerminalTheme:
        """What Rich's named colors are drawn as in this theme."""
        if self.theme not in self._terminal_colors:  # asked for with each line that is drawn
            self._terminal_colors[self.theme] = terminal_colors(
                super().ansi_theme, self.get_css_variables()
            )
        return self._terminal_colors[self.theme]

    def get_default_screen(self) -> Screen[Any]:
        """Home is where one begins: nothing else is laid out first."""
        return HomeScreen()

    def on_mount(self) -> None:
        """Answer signals, and take over the keys that a person has put elsewhere."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # Else the terminal is left in the alternate screen, with mouse reporting on.
            loop.add_signal_handler(number, self._end_by_signal, number)
        if not self.is_headless:
            self.set_interval(_SIZE_CHECK_S, self._keep_to_size)
        ask_through(WizardPrompter(self))
        try:
            self.set_keymap(read_keymap())
        except TunedeckError as error:
            self.say(trouble(error), severity="warning")
        if self._unread is not None:
            self.say(trouble(self._unread), severity="warning")
        self.theme_changed_signal.subscribe(self, self._keep_theme)

    def _keep_theme(self, theme: Theme) -> None:
        if not self.read_only:
            begin(self, lambda _stop: keep_theme(theme.name))

    def on_unmount(self) -> None:
        """What is asked from here on is asked on the terminal again."""
        ask_through(TerminalPrompter())

    def _end_by_signal(self, number: signal.Signals) -> None:
        # A terminal that is gone takes nothing any more, and what writes to it can wait for ever.
        signal.alarm(_END_LIMIT_S)
        self.exit(return_code=128 + number)

    async def on_resize(self, event: events.Resize) -> None:
        """Say so where there is too little room, and go on once there is more.

        Each change is waited for: a screen that goes while it is still being made is never done.
        """
        blocked = isinstance(self.screen, TooSmallScreen)
        if blocked and fits(event.size):
            await self.pop_screen()
        elif not blocked and not fits(event.size):
            await self.push_screen(TooSmallScreen())

    def _keep_to_size(self) -> None:
        """Lay out again where the terminal has another size than is painted.

        Of changes that follow each other closely the last one is lost now and then.
        """
        try:
            width, height = os.get_terminal_size(sys.__stderr__.fileno() if sys.__stderr__ else 2)
        except (OSError, ValueError):
            return
        size = Size(width, height)
        if self.size != size:
            self.post_message(events.Resize(size, size))
        elif self.screen.outer_size != size:
            self.screen.post_message(events.Resize(size, size))

    def say(self, text: str, *, severity: SeverityLevel = "information") -> None:
        """Show a note for a while. The text may come from anywhere: it is no markup."""
        self.notify(text, severity=severity, markup=False, timeout=8)

    def may_change(self, what: str) -> bool:
        """Whether something may be done that changes anything; if not, say why."""
        if self.read_only:
            self.say(f"{what} is off: the wizard was opened with --read-only.", severity="warning")
        return not self.read_only

    def on_failed(self, message: Failed) -> None:
        """Show what did not work, and what to do."""
        self.say(trouble(message.error), severity="error")

    def on_broken(self, message: Broken) -> None:
        """A bug ends the wizard, as one on the screen itself would."""
        raise message.error

    def _fatal_error(self) -> None:
        """Say that the wizard broke; Textual's own way prints the values of variables."""
        from ..core.crash import crash_report

        if self._exception is not None:
            self.panic(Text(trouble(crash_report(self._exception))))

    def action_help(self) -> None:
        """Explain the screen and what has the focus."""
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.screen))

    def action_jump(self) -> None:
        """Give every place a letter, and go to the one that is pressed."""

        def go(place: Widget | None) -> None:
            if place is not None:
                place.focus()

        if not isinstance(self.screen, JumpScreen):
            self.push_screen(JumpScreen(self.screen), go)

    def action_leave(self) -> None:
        """Quit, and say what goes on running."""
        self.exit(message="\n".join(goes_on()) or None)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Every action of the screen with its description, then what holds everywhere."""
        seen: set[str] = set()
        for active in screen.active_bindings.values():
            binding = active.binding
            if not binding.id or binding.action in seen:
                continue
            seen.add(binding.action)
            shown = self.get_key_display(binding)
            words = active.tooltip or binding.tooltip or binding.description
            node = active.node
            yield SystemCommand(
                binding.description,
                escape(f"{words}  [{shown}]"),
                lambda action=binding.action, node=node: self.run_worker(
                    self.run_action(action, node)
                ),
            )
        yield SystemCommand("Theme", "Choose other colors", self.action_change_theme)
        yield SystemCommand("Screenshot", "Save the screen as an SVG file", self._save_screenshot)

    def _save_screenshot(self) -> None:
        # Once the palette is gone.
        self.set_timer(0.1, self.action_screenshot)
