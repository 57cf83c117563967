"""What every full screen has: a title line, the command that does the same, the keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Footer, Static

from ...core.errors import TunedeckError
from ...core.text import strip_controls
from ..errand import Errand
from ..words import safe, trouble

if TYPE_CHECKING:
    from textual.message_pump import MessagePump

    from ..app import WizardApp

T = TypeVar("T")
P = TypeVar("P", bound="Page")

_BUSY_PACE_S = 0.5


def told(action: Callable[[P], None]) -> Callable[[P], None]:
    """Have what an action fails by said, where it would end the wizard.

    Files and runs may go while their lines are on the screen.
    """

    @wraps(action)
    def tried(page: P) -> None:
        try:
            action(page)
        except (TunedeckError, OSError) as error:
            page.wizard.say(trouble(error), severity="error")

    return tried


class _Line(Static):
    """A line of text that does something where it is clicked."""

    def __init__(self, does: Callable[[], object], *, id: str) -> None:
        super().__init__(id=id, markup=False)
        self._does = does

    def on_click(self) -> None:
        """Do it."""
        self._does()


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

    def __init__(self) -> None:
        super().__init__()
        self._errands: list[Errand] = []

    @property
    def wizard(self) -> WizardApp:
        """The application, by its own type."""
        return cast("WizardApp", self.app)

    def compose(self) -> ComposeResult:
        """Title, body, command, keys."""
        yield Static(id="title", markup=False)
        with Vertical(id="body"):
            yield from self.body()
        yield _Line(self.give_up, id="busy")
        yield _Line(self.action_copy_command, id="command")
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
        for line in self.query("#command").results(Static):  # gone where the screen is closing
            line.update(words)

    def begin_errand(
        self,
        what: str,
        work: Callable[[], Awaitable[T]],
        tell: Callable[[T], Message],
        given_up: Message | None = None,
        *,
        owner: MessagePump | None = None,
    ) -> Errand:
        """Ask something of the network; it is seen at the bottom, and esc gives it up.

        Args:
            what: what goes on, in words.
            work: is awaited in a thread.
            tell: makes the message from what it returns.
            given_up: what is told where it is given up.
            owner: gets the messages; this screen by default.
        """
        errand = Errand(owner or self, what, work, tell, given_up)
        self.start_errand(errand)
        return errand

    def start_errand(self, errand: Errand) -> None:
        """Begin something that may tell how far it is; it is seen and given up like all others."""
        self._errands.append(errand)
        errand.start()
        self._show_busy()

    def give_up(self) -> bool:
        """Give up what the network was last asked for; False where nothing goes on."""
        going_on = [errand for errand in self._errands if not errand.done]
        if not going_on:
            return False
        errand = going_on[-1]
        errand.give_up()
        self.wizard.say(f"Given up: {errand.what}.")
        self._show_busy()
        return True

    # Textual calls the handlers of every class of a screen, so that these go beside its own.

    def on_mount(self) -> None:
        """Nothing goes on at first."""
        self._show_busy()
        self.set_interval(_BUSY_PACE_S, self._show_busy)

    def on_unmount(self) -> None:
        """Nothing that was asked for outlives its screen."""
        for errand in self._errands:
            errand.give_up()

    def _show_busy(self) -> None:
        self._errands = [errand for errand in self._errands if not errand.done]
        line = self.query_one("#busy", Static)
        line.display = bool(self._errands)
        if self._errands:
            words = " and ".join(safe(one.what) for one in self._errands)
            passed = max(one.seconds for one in self._errands)
            line.update(
                Content.assemble(
                    ("◌ ", "$accent"), f"{words} … {passed} s  ", ("esc gives up", "$text-muted")
                )
            )

    def action_copy_command(self) -> None:
        """Copy the command; terminals without OSC 52 still show it."""
        self.app.copy_to_clipboard(self.command_line)
        self.wizard.say(f"Copied: {self.command_line}")
