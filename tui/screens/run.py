"""One run: its log, its curves, how far it is, and what can be done with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ...core.charts.curves import Curves
from ...core.charts.progress import Pace, planned_steps
from ...core.runs.suspension import is_suspended
from ...core.text import counted
from ..widgets.chart import Chart
from ..widgets.log_view import LogView
from . import run_charts as charts
from . import run_errands as errands
from . import run_onward as onward
from .page import Page, told
from .run_feed import Feed
from .run_hold import WentOn, hold, resume_in_place
from .run_lines import Lines
from .run_log import ask_lines, ask_search
from .run_messages import Fetched, Found, News, Opened, Points, Told, Troubled
from .run_state import state_lines, trouble_line

if TYPE_CHECKING:
    from ...core.runs.record import RunRecord

_LOG_PACE_S = 0.1
_WIDE = 110
_LAYOUTS = ("both", "log", "chart")


class RunScreen(Page):
    """A run that goes on or has ended, however long ago; without a network from what is here.

    Args:
        record: the run.
    """

    HELP = (
        "One run. Leaving the screen leaves the run alone: esc goes home, and home brings you "
        "back. Above is where it stands, then the curve (v shows another value, l all curves at "
        "once, or the log alone), then the log. g brings the run's files home, n opens a step "
        "that takes its result, a changes it and launches it anew."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="run.back", tooltip="Go back; the run goes on"),
        Binding("v", "value", "Value", id="run.value", tooltip="Draw another measured value"),
        Binding(
            "l", "layout", "Layout", show=False, id="run.layout", tooltip="Log, curves or both"
        ),
        Binding("d", "facts", "Facts", id="run.facts", tooltip="All that is known of the run"),
        Binding("x", "cancel", "Cancel", id="run.cancel", tooltip="Stop the run"),
        Binding("z", "hold", "Hold", show=False, id="run.hold", tooltip="Put it on hold"),
        Binding("r", "resume", "Resume", show=False, id="run.resume", tooltip="Go on"),
        Binding("n", "next", "Next", id="run.next", tooltip="Open a step that takes its result"),
        Binding("g", "fetch", "Fetch", show=False, id="run.fetch", tooltip="Bring its files home"),
        Binding("a", "again", "Again", show=False, id="run.again", tooltip="Change it and rerun"),
        Binding("s", "save", "Save", show=False, id="run.save", tooltip="Save it as a replay"),
        Binding(
            "ctrl+r",
            "look",
            "Look now",
            show=False,
            id="run.look",
            tooltip="Ask the place how the run is; a login may ask back",
        ),
    ]

    def __init__(self, record: RunRecord) -> None:
        super().__init__()
        self.record = record
        self.curves = Curves()
        self.pace = Pace(planned_steps(record.plan))
        self.lines = Lines()
        self._key = "loss"
        self._arrangement = 0
        self._opened = False
        self._feed = Feed(self, record)

    def body(self) -> ComposeResult:
        """State, outcome, curve, log; the facts take their place on demand."""
        yield Static(id="state", markup=False)
        yield Static(id="trouble", markup=False)
        yield Static(id="outcome", markup=False)
        with Vertical(id="panes"):
            yield Chart(id="chart")
            yield Grid(*(Chart() for _ in range(charts.MOST)), id="charts")
            yield LogView(id="log")
        with VerticalScroll(id="facts"):
            yield Static(id="facts-text", markup=False)

    def on_mount(self) -> None:
        """Show what is known, and begin to watch."""
        self.show_title("Run", self.record.name, self.record.run_id)
        self.query_one("#facts").display = False
        self._say_command()
        self.query_one("#log").focus()
        self._arrange()
        self._feed.start()
        self.set_interval(_LOG_PACE_S, self._tick)
        self._show_state()

    def on_unmount(self) -> None:
        """Stop watching; the run goes on."""
        self._feed.stop()

    def _say_command(self) -> None:
        words = ["tunedeck runs logs -f", self.record.run_id, *self.lines.options()]
        if self._arrangement == _LAYOUTS.index("chart"):
            words = ["tunedeck runs metrics", self.record.run_id]
        if self.query_one("#facts").display:
            words = ["tunedeck runs show", self.record.run_id]
        self.show_command(" ".join(words))

    # What is told by threads.

    @on(Opened)
    def _show_log(self, message: Opened) -> None:
        log = self.query_one(LogView)
        none = f"No line so far is of: {self.lines}. t shows all lines again."
        log.empty = none if self.lines.wanted else "No line so far."
        log.attach(message.reader)
        self._opened = True
        self._tick()

    def _tick(self) -> None:
        if self._opened:
            self.query_one(LogView).refresh_log()
        self._show_state()

    @on(Points)
    def _take(self, message: Points) -> None:
        self.curves.add(message.batch)
        self.pace.total = self.curves.total_steps or self.pace.total
        if "loss" in self.curves.latest:
            self.pace.saw(time.monotonic(), int(self.curves.latest["step"]))
        self._arrange()
        self._draw()

    @on(News)
    def _take_news(self, message: News) -> None:
        self.record = message.record
        self._show_state()
        if self.record.state.terminal:
            self._feed.tell(self.record)

    @on(Troubled)
    def _say_trouble(self, message: Troubled) -> None:
        line = self.query_one("#trouble", Static)
        line.display = bool(message.text)
        line.update(trouble_line(self.record, message.text))

    @on(Told)
    def _show_told(self, message: Told) -> None:
        self.query_one("#outcome", Static).update(message.outcome)
        self.query_one("#outcome").display = bool(message.outcome.plain)
        self.query_one("#facts-text", Static).update(message.facts)

    def _draw(self) -> None:
        name = self.record.name
        if _LAYOUTS[self._arrangement] == "chart":
            charts.draw_all(self.query_one("#charts"), name, self.curves)
        else:
            charts.draw_one(self.query_one("#chart", Chart), name, self.curves, self._key)

    def _show_state(self) -> None:
        lines = state_lines(self.record, self.curves, self.pace, self.size.width - 2)
        self.query_one("#state", Static).update(Content("\n").join(list(lines)))

    # Laying out.

    def on_resize(self, _event: events.Resize) -> None:
        """Beside each other where there is room, else below each other."""
        self._arrange()

    def _arrange(self) -> None:
        body = self.query_one("#body")
        body.set_class(self.app.size.width >= _WIDE, "wide")
        # A step that trains nothing, such as a merge, leaves its room to the log.
        trains = bool(self.record.plan["config_values"].get("step_scheduler"))
        body.set_class(not trains and not self.curves.by_key, "unmeasured")
        for layout in _LAYOUTS:
            body.set_class(_LAYOUTS[self._arrangement] == layout, layout)

    def action_layout(self) -> None:
        """Show log and curve, the log alone, or all curves at once."""
        self._arrangement = (self._arrangement + 1) % len(_LAYOUTS)
        self._arrange()
        self._draw()
        self._say_command()

    def action_facts(self) -> None:
        """Show or hide all facts."""
        facts = self.query_one("#facts")
        facts.display = not facts.display
        self.query_one("#body").set_class(facts.display, "facts")
        (facts if facts.display else self.query_one("#log")).focus()
        self._say_command()

    @on(Chart.Clicked)
    def _value_clicked(self) -> None:
        self.action_value()

    def action_value(self) -> None:
        """Choose which value is drawn."""

        def chosen(key: str | None) -> None:
            self._key = key or self._key
            self._draw()

        charts.ask_value(self, self.curves, self._key, chosen)

    # Searching and filtering.

    @on(LogView.Wanted)
    def _look_for(self, wanted: LogView.Wanted) -> None:
        shown = self.query_one(LogView).reader
        self._feed.find(wanted.pattern, wanted.start, backwards=wanted.backwards, shown=shown)

    @on(Found)
    def _show_found(self, found: Found) -> None:
        if found.number is None:
            self.wizard.say("No further line like that in this direction.")
        else:
            self.query_one(LogView).go_to(found.number)

    @on(LogView.SearchAsked)
    def _ask_search(self) -> None:
        ask_search(self, self.query_one(LogView))

    @on(LogView.FilterAsked)
    def _ask_filter(self) -> None:
        ask_lines(self, self.record, lambda: self.lines, self._show_lines)

    def _show_lines(self, lines: Lines) -> None:
        self.lines = lines
        self._feed.open(lines)
        self._say_command()

    # Doing something with the run.

    def action_back(self) -> None:
        """Leave the screen; what the network is being asked is given up first."""
        if self.give_up():
            return
        if self.query_one("#facts").display:
            self.action_facts()
        else:
            self.app.pop_screen()

    def action_look(self) -> None:
        """Ask the place how the run is; here a login may ask for a password."""
        errands.look_now(self)

    def action_cancel(self) -> None:
        """Ask, then stop the run."""
        errands.cancel(self)

    def action_fetch(self) -> None:
        """Bring the run's files home: its result, its configs, what it measured."""
        errands.fetch(self)

    @on(Fetched)
    def _say_fetched(self, message: Fetched) -> None:
        self.wizard.say(f"Fetched {counted(len(message.paths), 'file')} to {self.record.run_dir}.")
        self._feed.tell(self.record)

    def action_hold(self) -> None:
        """Ask, then put the run on hold where its service can."""
        hold(self, self.record)

    @on(WentOn)
    def _follow_on(self, message: WentOn) -> None:
        self.app.switch_screen(RunScreen(message.record))

    @told
    def action_resume(self) -> None:
        """Go on in place from a hold; else review a run from the last checkpoint of this one."""
        if is_suspended(self.record):
            resume_in_place(self, self.record)
        else:
            onward.resume(self.wizard, self.record)

    @told
    def action_again(self) -> None:
        """Change what this run was made of, and launch it anew."""
        onward.again(self.wizard, self.record)

    @told
    def action_next(self) -> None:
        """Choose a step that takes what this run has made."""
        onward.next_step(self.wizard, self.record)

    @told
    def action_save(self) -> None:
        """Save the run's ingredients under a name."""
        onward.save(self.wizard, self.record)
