"""One run: its log, its curves, how far it is, and what can be done with it."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ...core.choices import selection_of
from ...core.curves import Curves, PointReader
from ...core.drafts import Draft, Stage
from ...core.errors import TunedeckError
from ...core.progress import Pace, planned_steps
from ...core.registry import Registry
from ...core.resolve import Selection
from ...core.spool_reader import SpoolReader
from ...core.states import RunState
from ...core.watch import Changed, Trouble, backend_of, watch
from ..background import begin
from ..widgets.chart import Chart, Line, title_of
from ..widgets.log_view import LogView
from ..words import MARKS, cell, safe, trouble
from .ask import AskText, Choose, Confirm
from .page import Page
from .run_messages import Found, News, Opened, Points, Told

if TYPE_CHECKING:
    from ...core.record import RunRecord

_LOG_PACE_S = 0.1
_POINTS_PACE_S = 0.25
_WIDE = 110
_LAYOUTS = ("both", "log", "chart")
_FIRST = ("loss", "val_loss", "lr", "grad_norm", "tokens_per_s", "mem_gib")


class RunScreen(Page):
    """A run that goes on or has ended, however long ago; without a network from what is here.

    Args:
        record: the run.
    """

    HELP = (
        "One run. Leaving the screen leaves the run alone: esc goes home, and home brings you "
        "back. Above is where it stands, then the curve (v shows another value), then the log."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="run.back", tooltip="Go back; the run goes on"),
        Binding("v", "value", "Value", id="run.value", tooltip="Draw another measured value"),
        Binding(
            "l",
            "layout",
            "Layout",
            show=False,
            id="run.layout",
            tooltip="One or both",
        ),
        Binding("d", "facts", "Facts", id="run.facts", tooltip="All that is known of the run"),
        Binding("x", "cancel", "Cancel", id="run.cancel", tooltip="Stop the run"),
        Binding("r", "resume", "Resume", show=False, id="run.resume", tooltip="Go on"),
        Binding("n", "next", "Next", id="run.next", tooltip="Open a step that takes its result"),
        Binding("a", "again", "Again", show=False, id="run.again", tooltip="Change it and rerun"),
        Binding("s", "save", "Save", show=False, id="run.save", tooltip="Save it as a replay"),
    ]

    def __init__(self, record: RunRecord) -> None:
        super().__init__()
        self.record = record
        self.curves = Curves()
        self.pace = Pace(planned_steps(record.plan))
        self._key = "loss"
        self._arrangement = 0
        self._opened = False
        self._stops: list[threading.Event] = []
        self._search: threading.Event | None = None
        self._registry = Registry()

    def body(self) -> ComposeResult:
        """State, outcome, curve, log; the facts take their place on demand."""
        yield Static(id="state", markup=False)
        yield Static(id="outcome", markup=False)
        with Vertical(id="panes"):
            yield Chart(id="chart")
            yield LogView(id="log")
        with VerticalScroll(id="facts"):
            yield Static(id="facts-text", markup=False)

    def on_mount(self) -> None:
        """Show what is known, and begin to watch."""
        self.show_title("Run", self.record.name, self.record.run_id)
        self.show_command(f"tunedeck runs logs -f {self.record.run_id}")
        self.query_one("#facts").display = False
        self.query_one("#log").focus()
        self._arrange()
        reader = SpoolReader(self.record.log)
        self._stops = [
            begin(self, lambda _stop: self._open(reader)),
            begin(self, self._measure),
            begin(self, self._watch),
            begin(self, lambda _stop: self._tell(self.record)),
        ]
        self.set_interval(_LOG_PACE_S, self._tick)
        self._show_state()

    def on_unmount(self) -> None:
        """Stop watching; the run goes on."""
        for stop in [*self._stops, *([self._search] if self._search else [])]:
            stop.set()

    # What happens in threads.

    def _open(self, reader: SpoolReader) -> None:
        reader.refresh()
        self.post_message(Opened(reader))

    def _measure(self, stop: threading.Event) -> None:
        reader = PointReader(self.record.log)
        while not stop.is_set():
            for batch in reader.batches():
                self.post_message(Points(batch))
            stop.wait(_POINTS_PACE_S)

    def _watch(self, stop: threading.Event) -> None:
        record = self.record
        if record.state.terminal:
            return

        async def follow() -> None:
            offset = record.log.stat().st_size if record.log.exists() else 0
            events_ = watch(record, backend_of(record), self._registry, offset=offset)
            async with aclosing(events_):
                async for event in events_:
                    if stop.is_set():
                        return
                    if isinstance(event, Changed):
                        self.post_message(News(event.record))
                    elif isinstance(event, Trouble):
                        self.app.call_from_thread(self.wizard.say, event.text, severity="warning")

        asyncio.run(follow())

    def _tell(self, record: RunRecord) -> None:
        from ..facts import facts_of, outcome_of

        self.post_message(Told(outcome_of(record), facts_of(record)))

    # What comes of it on the screen.

    @on(Opened)
    def _show_log(self, message: Opened) -> None:
        self.query_one(LogView).attach(message.reader)
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
        self._draw()

    @on(News)
    def _take_news(self, message: News) -> None:
        self.record = message.record
        self._show_state()
        if self.record.state.terminal:
            record = self.record
            self._stops.append(begin(self, lambda _stop: self._tell(record)))

    @on(Told)
    def _show_told(self, message: Told) -> None:
        self.query_one("#outcome", Static).update(message.outcome)
        self.query_one("#outcome").display = bool(message.outcome.plain)
        self.query_one("#facts-text", Static).update(message.facts)

    def _draw(self) -> None:
        curve = self.curves.by_key.get(self._key)
        lines = [Line(self.record.name, curve)] if curve else []
        self.query_one(Chart).show(self._key, lines)

    def _show_state(self) -> None:
        self.query_one("#state", Static).update(
            Content("\n").join(list(self._state_lines(self.size.width - 2)))
        )

    def _state_lines(self, width: int) -> Iterator[Content]:
        from ...core.cli.live import span

        record = self.record
        mark, color = MARKS[record.state]
        word = f" ({safe(record.word)})" if record.word and record.word != record.state else ""
        reason = f": {safe(record.reason)}" if record.reason else ""
        where = f"  on {safe(record.profile)}"
        yield Content.assemble(
            (f"{mark} {record.state}", f"bold {color}"), cell(f"{word}{reason}{where}", width - 12)
        )
        latest = self.curves.latest
        parts: list[str | tuple[str, str]] = []
        share = self.pace.share
        if share is not None:
            filled = round(share * 20)
            parts += [("━" * filled, "$accent"), ("─" * (20 - filled) + " ", "$text-muted")]
        if "step" in latest:
            total = f"/{self.pace.total}" if self.pace.total else ""
            parts.append(f"step {latest['step']}{total}  ")
        if (left := self.pace.seconds_left) is not None and not record.state.terminal:
            parts.append((f"{span(left)} left  ", "bold"))
        took_until = record.ended_at or time.time()
        if record.started_at is not None:
            parts.append((f"{span(took_until - record.started_at)}  ", "$text-muted"))
        for key, name in (("loss", "loss"), ("val_loss", "val"), ("tokens_per_s", "tokens/s")):
            if key in latest:
                parts.append(f"{name} {latest[key]:.4g}  ")
        yield Content.assemble(*parts).truncate(max(width, 1), ellipsis=True)

    # Laying out.

    def on_resize(self, _event: events.Resize) -> None:
        """Beside each other where there is room, else below each other."""
        self._arrange()

    def _arrange(self) -> None:
        self.query_one("#body").set_class(self.app.size.width >= _WIDE, "wide")
        for layout in _LAYOUTS:
            self.query_one("#body").set_class(_LAYOUTS[self._arrangement] == layout, layout)

    def action_layout(self) -> None:
        """Show log and curve, the log alone, or the curve alone."""
        self._arrangement = (self._arrangement + 1) % len(_LAYOUTS)
        self._arrange()

    def action_facts(self) -> None:
        """Show or hide all facts."""
        facts = self.query_one("#facts")
        facts.display = not facts.display
        self.query_one("#body").set_class(facts.display, "facts")
        (facts if facts.display else self.query_one("#log")).focus()

    def action_value(self) -> None:
        """Choose which value is drawn."""
        keys = sorted(
            self.curves.by_key,
            key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), key),
        )
        if not keys:
            self.wizard.say("Nothing has been measured yet.")
            return
        choices = [(key, f"{title_of(key)}, now {self.curves.latest[key]:.4g}") for key in keys]

        def chosen(key: str | None) -> None:
            self._key = key or self._key
            self._draw()

        self.app.push_screen(Choose("Value to draw", choices, marked=self._key), chosen)

    # Searching.

    @on(LogView.Wanted)
    def _look_for(self, wanted: LogView.Wanted) -> None:
        if self._search is not None:
            self._search.set()

        def look(stop: threading.Event) -> None:
            with SpoolReader(self.record.log) as reader:
                number = reader.find(
                    wanted.pattern, wanted.start, backwards=wanted.backwards, stopped=stop.is_set
                )
            if not stop.is_set():
                self.post_message(Found(number))

        self._search = begin(self, look)

    @on(Found)
    def _show_found(self, found: Found) -> None:
        if found.number is None:
            self.wizard.say("No further line like that in this direction.")
        else:
            self.query_one(LogView).go_to(found.number)

    @on(LogView.SearchAsked)
    def _ask_search(self) -> None:
        def typed(text: str | None) -> None:
            if text:
                log = self.query_one(LogView)
                log.pattern = re.compile(re.escape(text.encode()), re.IGNORECASE)
                log.search(log.pattern, backwards=log.following)

        about = "Text to look for in the log, capitals or not. f goes to the next one, F back."
        self.app.push_screen(AskText("Search the log", about, ""), typed)

    # Doing something with the run.

    def action_back(self) -> None:
        """Leave the screen."""
        if self.query_one("#facts").display:
            self.action_facts()
        else:
            self.app.pop_screen()

    def action_cancel(self) -> None:
        """Ask, then stop the run."""
        if self.record.state.terminal:
            self.wizard.say("There is nothing to cancel: the run has ended.")
        elif self.wizard.may_change("Cancelling"):
            name = safe(self.record.name)
            question = f"Cancel {name}? Its last published checkpoint is kept."
            self.app.push_screen(Confirm(question, "Cancel the run"), self._cancel_if)

    def _cancel_if(self, sure: bool | None) -> None:
        if not sure:
            return
        from ...core.launch import cancel

        record = self.record
        self.wizard.say("Cancelling …")

        def work(_stop: threading.Event) -> None:
            done = asyncio.run(cancel(record, backend_of(record), self._registry))
            self.post_message(News(done))

        begin(self, work)

    def action_resume(self) -> None:
        """Review a run that goes on from the last checkpoint of this one."""
        if not self.record.state.terminal:
            self.wizard.say("It goes on as it is; only a run that has ended can be resumed.")
            return
        from ...core.resolve import resume_selection

        try:
            self._walk(resume_selection(self.record, ()), "review")
        except TunedeckError as error:
            self.wizard.say(trouble(error), severity="warning")

    def action_again(self) -> None:
        """Change what this run was made of, and launch it anew."""
        self._walk(selection_of(self.record), "config")

    def action_next(self) -> None:
        """Choose a step that takes what this run has made."""
        if self.record.state is not RunState.SUCCEEDED:
            self.wizard.say("Only what a run has finished can be handed on.")
            return
        chosen = Selection("", from_run=self.record.run_id)
        self._walk(chosen, "step", made_by=self.record.step)

    def _walk(self, selection: Selection, stage: Stage, *, made_by: str | None = None) -> None:
        from .launch import LaunchScreen

        self.app.push_screen(LaunchScreen(Draft.begin(selection, stage), made_by=made_by))

    def action_save(self) -> None:
        """Save the run's ingredients under a name."""
        if not self.wizard.may_change("Saving"):
            return
        from ..saving import ask_and_save

        ask_and_save(self.wizard, self.record.plan, self.record.name)
