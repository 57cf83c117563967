"""Home: what runs, what was saved, what was left unfinished, and where to begin."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import OptionList, Static

from ..background import begin
from ..widgets.lists import marked_id, refill
from .home_attach import Attached, ask_and_attach
from .home_rows import home_options
from .home_watch import Seen, look_on
from .page import Page, told

if TYPE_CHECKING:
    from ...core.drafts import Draft

_WELCOME = (
    "Nothing has run yet. Press enter on the first line: it fine-tunes a tiny model on this "
    "machine in about a minute, without network, and shows you everything on the way."
)
_KEYS = "n begins a launch of your own, ? explains any screen, ctrl+p lists all that can be done."


class HomeScreen(Page):
    """The list of everything, kept up to date."""

    HELP = (
        "Home lists your runs (newest first, states live), launches that you left unfinished and "
        "launches that were saved. Enter opens the line that is marked."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New", id="home.new", tooltip="Begin a launch"),
        Binding("delete", "forget", "Forget", id="home.forget", tooltip="Forget a draft"),
        Binding("space", "mark", "Mark", id="home.mark", tooltip="Mark a run, to compare several"),
        Binding("c", "compare", "Compare", id="home.compare", tooltip="Marked runs side by side"),
        Binding(
            "a",
            "attach",
            "Attach",
            show=False,
            id="home.attach",
            tooltip="Follow a job that another machine launched",
        ),
        Binding("enter,o", "open", "Open", id="home.open", tooltip="Open what is marked"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._stop: threading.Event | None = None
        self._seen: Seen | None = None
        self._order: list[str] = []
        self._compared: list[str] = []
        self._drawn_width = 0

    @property
    def ready(self) -> bool:
        """Whether there is a list that keys could act on."""
        return bool(self._order)

    def body(self) -> ComposeResult:
        """The welcome, which goes once there is a run, and the list."""
        yield Static(f"{_WELCOME}\n\n{_KEYS}", id="welcome", markup=False)
        yield OptionList(id="everything", markup=False)

    def on_mount(self) -> None:
        """Show the frame; what is in it comes from a thread, so that the first picture is quick."""
        self.query_one("#welcome").display = False
        self.show_title("Home")
        self.show_command("tunedeck runs list")
        self.query_one("#everything").focus()

    def on_screen_resume(self) -> None:
        """Look at the runs while the screen is to be seen."""
        self._look_on()

    def on_screen_suspend(self) -> None:
        """Another screen is over this one: stop looking."""
        self._look_away()

    def on_unmount(self) -> None:
        """The wizard ends."""
        self._look_away()

    def _look_on(self) -> None:
        self._look_away()
        self._stop = begin(self, partial(look_on, self))

    def _look_away(self) -> None:
        if self._stop is not None:
            self._stop.set()

    @on(Seen)
    def _show(self, seen: Seen) -> None:
        self._seen = seen
        self.query_one("#welcome").display = not seen.runs
        self._draw()

    def on_resize(self, event: events.Resize) -> None:
        """Lay the columns out anew, where their room is another."""
        if event.size.width != self._drawn_width:
            self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        if self._seen is None:
            return
        self._drawn_width = self.size.width
        options = list(home_options(self._seen, self._compared, self.size.width - 3))
        order = [option.id or "" for option in options]
        everything = self.query_one("#everything", OptionList)
        if order == self._order:
            for option in options:
                everything.replace_option_prompt(option.id or "", option.prompt)
            return
        refill(everything, options, marked_id(everything) if self._order else None)
        self._order = order

    @property
    def _marked(self) -> tuple[str, str]:
        """Kind and name of the marked line: `run` and its id."""
        marked = marked_id(self.query_one("#everything", OptionList)) or ""
        kind, _, name = marked.partition(":")
        return kind, name

    @on(OptionList.OptionSelected)
    def _open_marked(self) -> None:
        self.action_open()

    @on(OptionList.OptionHighlighted)
    def _say_command(self) -> None:
        kind, name = self._marked
        self.show_command(
            {
                "run": f"tunedeck runs show {name}",
                "replay": f"tunedeck replay {name}",
                "demo": "tunedeck steps run peft/automodel -c tiny",
                "new": "tunedeck steps list",
                "attach": "tunedeck runs attach PROFILE JOB",
                "draft": self._draft_command(name),
            }.get(kind, "tunedeck runs list")
        )

    def _draft_command(self, draft_id: str) -> str:
        from ...core.choices import command_of

        for draft in self._seen.drafts if self._seen else ():
            if draft.draft_id == draft_id and draft.selection.step:
                return shlex.join(command_of(draft.selection, "--dry-run"))
        return "tunedeck steps list"

    @told
    def action_open(self) -> None:
        """Open the marked line."""
        kind, name = self._marked
        openers: dict[str, Callable[[], None]] = {
            "run": lambda: self._open_run(name),
            "draft": lambda: self._open_draft(name),
            "replay": lambda: self._open_replay(name),
            "new": self.action_new,
            "demo": self._open_demo,
            "attach": self.action_attach,
        }
        if kind in openers:
            openers[kind]()

    def action_new(self) -> None:
        """Begin a launch."""
        from ...core.drafts import Draft
        from ...core.selection import Selection

        self._walk(Draft.begin(Selection("")))

    def action_mark(self) -> None:
        """Mark a run for comparing, or no longer."""
        kind, name = self._marked
        if kind != "run":
            self.wizard.say("Only runs are marked, to be compared.")
        elif name in self._compared:
            self._compared.remove(name)
        else:
            self._compared.append(name)
        self._draw()

    @told
    def action_compare(self) -> None:
        """Show the marked runs side by side."""
        if len(self._compared) < 2:
            self.wizard.say("Mark two runs or more with space first.")
            return
        from ...core.runs.registry import Registry
        from .compare import CompareScreen

        registry = Registry()
        self.app.push_screen(CompareScreen([registry.get(run_id) for run_id in self._compared]))

    def action_attach(self) -> None:
        """Ask for a job, and follow it."""
        ask_and_attach(self)

    @on(Attached)
    def _open_attached(self, message: Attached) -> None:
        self._open_run(message.record.run_id)

    @told
    def action_forget(self) -> None:
        """Forget the marked draft."""
        kind, name = self._marked
        if kind != "draft":
            self.wizard.say("Only unfinished launches are forgotten here.")
            return
        from ...core.drafts import delete_draft

        delete_draft(name)
        self._look_on()

    def _open_demo(self) -> None:
        from ...core.drafts import Draft
        from ...core.selection import Selection

        self._walk(Draft.begin(Selection("peft/automodel", config="tiny"), "review"))

    def _open_draft(self, draft_id: str) -> None:
        for draft in self._seen.drafts if self._seen else ():
            if draft.draft_id == draft_id:
                self._walk(draft)

    def _open_replay(self, name: str) -> None:
        from .replay import ReplayScreen

        self.app.push_screen(ReplayScreen(name))

    def _walk(self, draft: Draft) -> None:
        from .launch import LaunchScreen

        self.app.push_screen(LaunchScreen(draft))

    def _open_run(self, run_id: str) -> None:
        from ...core.runs.registry import Registry
        from .run import RunScreen

        self.app.push_screen(RunScreen(Registry().get(run_id)))
