"""Small questions over a screen: yes or no, one of several, a line of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from ...core.text import holds, strip_controls
from ..widgets.lists import marked_id, refill
from ..words import cell
from .dialog import Dialog


class Confirm(Dialog[bool]):
    """Asks before something that cannot be taken back.

    Args:
        question: what would be done.
        yes: the word on the button that does it.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
        Binding("left,right", "app.focus_next", show=False),
    ]

    def __init__(self, question: str, yes: str) -> None:
        super().__init__()
        self._question, self._yes = question, yes

    def compose(self) -> ComposeResult:
        """The question and two buttons; the harmless one has the focus."""
        with Vertical(id="dialog"):
            yield Static(strip_controls(self._question), markup=False)
            with Horizontal(classes="buttons"):
                yield Button(f"{self._yes} (y)", id="yes", variant="error", compact=True)
                yield Button("No (n)", id="no", compact=True)

    def on_mount(self) -> None:
        """Enter alone does no harm."""
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """A button was pressed."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """A key was pressed."""
        self.dismiss(yes)


class Choose(Dialog[str]):
    """Asks for one of several; typing narrows them down.

    Args:
        title: what is chosen.
        choices: value and description.
        marked: the value that is marked at first.
        free: whether what is typed may be taken though it is not among them.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back"),
        Binding("down", "move(1)", show=False),
        Binding("up", "move(-1)", show=False),
    ]

    def __init__(
        self,
        title: str,
        choices: Sequence[tuple[str, str]],
        *,
        marked: str | None = None,
        free: bool = False,
    ) -> None:
        super().__init__()
        self._title, self._choices, self._at, self._free = title, choices, marked, free

    def compose(self) -> ComposeResult:
        """A line to type in, and the list."""
        with Vertical(id="dialog"):
            yield Input(placeholder="type to narrow down", id="typed")
            yield OptionList(id="choices", markup=False)

    def on_mount(self) -> None:
        """All choices at first."""
        self.entitle(self._title, "enter takes · esc leaves")
        self._narrow("")
        self.query_one("#typed").focus()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._narrow(event.value)

    def _narrow(self, text: str) -> None:
        room = max(min(self.app.size.width * 9 // 10, 92) - 6, 20)
        first = min(max((len(value) for value, _ in self._choices), default=0), room * 2 // 3) + 2
        found = [one for one in self._choices if holds(" ".join(one), text)]
        options = [
            Option(
                Content.assemble(
                    (cell(value, first), "bold"), (cell(about, room - first), "$text-muted")
                ),
                id=value,
            )
            for value, about in found
        ]
        typed = text.strip()
        if self._free and typed and typed not in dict(found):
            options.append(Option(Content(f"{typed}  (as typed)"), id=typed))
        if not options:
            none = Content.styled("Nothing fits what is typed.", "$text-muted")
            options.append(Option(none, disabled=True))
        refill(self.query_one("#choices", OptionList), options, self._at)

    def action_move(self, by: int) -> None:
        """Move the mark while the focus stays where one types."""
        choices = self.query_one("#choices", OptionList)
        (choices.action_cursor_down if by > 0 else choices.action_cursor_up)()

    @on(Input.Submitted)
    def _submitted(self) -> None:
        if (value := marked_id(self.query_one("#choices", OptionList))) is not None:
            self.dismiss(value)

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)


class AskText(Dialog[str]):
    """Asks for a line of text, and stays until it is right.

    Args:
        title: what is asked for.
        about: what there is to know, in words.
        value: what is there at first.
        check: tells what is wrong with a text, or nothing.
        keeps_wrong: whether a second enter takes what is wrong all the same.
        refuses: tells what may not be taken at all.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back")]

    def __init__(
        self,
        title: str,
        about: str,
        value: str,
        check: Callable[[str], str] = lambda _text: "",
        *,
        keeps_wrong: bool = False,
        refuses: Callable[[str], bool] = lambda _text: False,
    ) -> None:
        super().__init__()
        self._title, self._about, self._value, self._check = title, about, value, check
        self._keeps_wrong, self._refuses = keeps_wrong, refuses
        self._insisted: str | None = None

    def compose(self) -> ComposeResult:
        """What it is, the line, and what is wrong with it."""
        with Vertical(id="dialog"):
            yield Static(strip_controls(self._about), markup=False, classes="quiet")
            yield Input(self._value, id="typed")
            yield Static("", id="wrong", markup=False)

    def on_mount(self) -> None:
        """Ready to type."""
        self.entitle(self._title, "enter takes · esc leaves it as it was")
        self.query_one("#typed").focus()

    @property
    def unfinished(self) -> bool:
        """Whether something else is typed than was there at first."""
        return self.query_one("#typed", Input).value != self._value

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        """Say what is wrong as one types."""
        wrong = self._check(event.value)
        words = Content.assemble((f"✗ {strip_controls(wrong)}", "$error")) if wrong else Content("")
        self.query_one("#wrong", Static).update(words)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        if not self._check(event.value) or self._insisted == event.value:
            self.dismiss(event.value)
        elif self._keeps_wrong and not self._refuses(event.value):
            self._insisted = event.value
            self.entitle(self._title, "enter again keeps it all the same")


class AskLogin(Dialog[str]):
    """Passes on what a login asks. The question is the other machine's: it is shown as text.

    Args:
        question: as it was asked.
        hidden: whether the answer is not to be seen.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Leave")]

    def __init__(self, question: str, *, hidden: bool) -> None:
        super().__init__()
        self._question, self._hidden = question, hidden

    def compose(self) -> ComposeResult:
        """The question and a line for the answer."""
        with Vertical(id="dialog"):
            yield Static(strip_controls(self._question), markup=False)
            yield Input(id="typed", password=self._hidden)

    def on_mount(self) -> None:
        """Ready to type."""
        self.entitle("The login asks", "enter answers · esc does not log in")
        self.query_one("#typed").focus()

    @property
    def unfinished(self) -> bool:
        """Always: a login is not given up by a click that went astray."""
        return True

    def leave(self) -> None:
        """Go: nobody waits for the answer any more."""
        if self.is_current:
            self.dismiss(None)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)
