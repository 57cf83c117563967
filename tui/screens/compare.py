"""Several runs side by side: their states in a list, their curves laid over each other."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from ...core.charts.curves import Batch, Curves, PointReader
from ...core.charts.plot import COLORS
from ...core.runs.registry import Registry
from ...core.text import four_digits
from ..background import begin
from ..widgets.chart import Chart, Line, title_of
from ..words import MARKS, cell
from .ask import Choose
from .page import Page

if TYPE_CHECKING:
    from ...core.runs.record import RunRecord

_PACE_S = 0.5


class MorePoints(Message):
    """One of the logs measures more."""

    def __init__(self, run_id: str, batch: Batch) -> None:
        super().__init__()
        self.run_id, self.batch = run_id, batch


class States(Message):
    """The runs as the registry has them now."""

    def __init__(self, records: list[RunRecord]) -> None:
        super().__init__()
        self.records = records


class CompareScreen(Page):
    """Shows the curves of several runs in one frame.

    Args:
        records: the runs, at least one.
    """

    HELP = (
        "Several runs at once. Each curve ends in the number of its run, as the list above has it. "
        "v draws another value."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "Back", id="compare.back"),
        Binding("v", "value", "Value", id="compare.value", tooltip="Draw another measured value"),
    ]

    def __init__(self, records: list[RunRecord]) -> None:
        super().__init__()
        self._records = records
        self._curves = {record.run_id: Curves() for record in records}
        self._key = "loss"
        self._stop: threading.Event | None = None

    def body(self) -> ComposeResult:
        """The list, and the chart."""
        yield Static(id="compared", markup=False)
        yield Chart(id="overlaid")

    def on_mount(self) -> None:
        """Read the logs in a thread, as they grow."""
        self.show_title("Runs side by side")
        self._say_command()
        self._stop = begin(self, self._read)
        self._draw()

    def _say_command(self) -> None:
        runs = " ".join(record.run_id for record in self._records)
        self.show_command(f"tunedeck runs metrics {runs} --plot --key {self._key}")

    def on_unmount(self) -> None:
        """Stop reading."""
        if self._stop is not None:
            self._stop.set()

    def _read(self, stop: threading.Event) -> None:
        registry = Registry()
        readers = {record.run_id: PointReader(record.log) for record in self._records}
        while not stop.is_set():
            for run_id, reader in readers.items():
                for batch in reader.batches():
                    self.post_message(MorePoints(run_id, batch))
            self.post_message(States([registry.get(run_id) for run_id in readers]))
            stop.wait(_PACE_S)

    @on(MorePoints)
    def _take(self, message: MorePoints) -> None:
        self._curves[message.run_id].add(message.batch)
        self._draw()

    @on(States)
    def _take_states(self, message: States) -> None:
        self._records = message.records
        self._draw()

    def _draw(self) -> None:
        rows = []
        lines = []
        for record in self._records:
            curves = self._curves[record.run_id]
            curve = curves.by_key.get(self._key)
            number = ""
            if curve is not None and curve.values:
                lines.append(Line(record.name, curve))
                number = str(len(lines))
            mark, color = MARKS[record.state]
            line_color = f"ansi_{COLORS[(len(lines) - 1) % len(COLORS)]}" if number else ""
            newest = curves.latest.get(self._key)
            rows.append(
                Content.assemble(
                    (f"{number:>2} ", f"bold {line_color}"),
                    (f"{mark} {cell(record.state, 10)} ", color),
                    (cell(record.name, 30) + " ", "bold"),
                    cell("" if newest is None else four_digits(newest), 10),
                    (" ".join(record.plan["overrides"]), "$text-muted"),
                ).truncate(max(self.app.size.width - 2, 1), ellipsis=True)
            )
        self.query_one("#compared", Static).update(Content("\n").join(rows))
        self.query_one(Chart).show(self._key, lines)

    @on(Chart.Clicked)
    def _value_clicked(self) -> None:
        self.action_value()

    def action_value(self) -> None:
        """Choose which value is drawn."""
        keys = sorted({key for curves in self._curves.values() for key in curves.by_key})
        if not keys:
            self.wizard.say("Nothing has been measured yet.")
            return

        def chosen(key: str | None) -> None:
            self._key = key or self._key
            self._say_command()
            self._draw()

        choices = [(key, title_of(key)) for key in keys]
        self.app.push_screen(Choose("Value to draw", choices, marked=self._key), chosen)
