"""How a run is shown while it goes on: plain lines, and on a terminal a bar and a curve below."""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING, Any, Protocol

import click

from ..charts.metrics import Metrics, sparkline
from ..charts.progress import Pace, planned_steps, total_steps
from ..runs.watch import Changed, Event, Fine, Line, Measured, Trouble
from ..text import four_digits, shown_line, strip_controls
from .output import note, print_json_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..runs.record import RunRecord

_CURVE_WIDTH = 48
_FINE = "It answers again."


class View(Protocol):
    """Shows the events of a run."""

    def show(self, event: Event) -> None:
        """Take in one event."""
        ...

    def draw(self) -> None:
        """Bring the screen up to date; called several times a second."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class PlainView:
    """Lines as they come, for pipes, files and dumb terminals.

    Args:
        stream: where log lines go; what is said about the run goes to stderr.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def show(self, event: Event) -> None:
        """Print a line, or a note on what changed."""
        match event:
            case Line(line):
                click.echo(shown_line(line), file=self._stream)
            case Changed(record) if not record.state.terminal:
                note(state_words(record))
            case Trouble(text):
                note(text)
            case Fine():
                note(_FINE)

    def draw(self) -> None:
        """Nothing: lines are printed as they come."""

    def close(self) -> None:
        """Nothing was changed on the terminal."""


class JsonView(PlainView):
    """Lines as objects of a stream on stdout, for programs; the rest as `PlainView` does."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def show(self, event: Event) -> None:
        """Print a line as an object, or a note on what changed."""
        if isinstance(event, Line):
            print_json_line({"line": shown_line(event.line), "offset": event.offset})
        else:
            super().show(event)


class LiveView:
    """Log lines above; below them a progress bar with the newest values, and the curve of the loss.

    Args:
        record: the run.
    """

    def __init__(self, record: RunRecord) -> None:
        from rich.console import Console
        from rich.live import Live

        self._record = record
        self._metrics = Metrics()
        self._pace = Pace(planned_steps(record.plan))
        self._lines: list[str] = []
        self._live = Live(console=Console(), auto_refresh=False, transient=True)
        self._live.start()

    def show(self, event: Event) -> None:
        """Keep a line for the next drawing, or take in what was measured."""
        match event:
            case Line(line):
                self._keep(line)
            case Measured(point):
                if "loss" in point:
                    self._pace.saw(time.monotonic(), int(point["step"]))
            case Changed(record):
                self._record = record
            case Trouble(text):
                self._lines.append(f"! {text}")
            case Fine():
                self._lines.append(f"! {_FINE}")

    def draw(self) -> None:
        """Print the lines since the last drawing in one go, and redraw what is below them."""
        from rich.text import Text

        if self._lines:
            self._live.console.print(Text("\n".join(self._lines)), soft_wrap=True)
            self._lines.clear()
        self._live.update(self._below(), refresh=True)

    def close(self) -> None:
        """Print what is left, and take the bar away."""
        self.draw()
        self._live.stop()

    def _keep(self, line: bytes) -> None:
        if (total := total_steps(line)) is not None:
            self._pace.total = total
        point = self._metrics.feed(line)
        # The bar shows the steps; a validation is worth a line of its own.
        if point is None or "val_loss" in point:
            self._lines.append(shown_line(line))

    def _below(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        latest = self._metrics.latest
        if "loss" not in latest:
            return Text(f"{state_words(self._record)}, {span(self._elapsed())}", style="bold")
        step, total = int(latest["step"]), self._pace.total
        grid = Table.grid(padding=(0, 2))
        cells: list[Any] = [Text(str(self._record.state), style="bold")]
        if total:
            cells.append(ProgressBar(total=total, completed=step, width=24))
        cells.append(f"step {step}/{total}" if total else f"step {step}")
        if (left := self._pace.seconds_left) is not None:
            cells.append(f"{span(left)} left")
        cells += [f"{words} {four_digits(latest[key])}" for key, words in _VALUES if key in latest]
        grid.add_row(*cells)
        curve = sparkline(self._metrics.series("loss"), _CURVE_WIDTH)
        return Group(grid, Text(f"loss {curve}"))

    def _elapsed(self) -> float:
        return time.time() - (self._record.started_at or self._record.created_at)


_VALUES = (("loss", "loss"), ("val_loss", "val"), ("tokens_per_s", "tokens/s"))


def state_words(record: RunRecord) -> str:
    """A run and its state in words: `r0abc (my-run): queued, Priority`."""
    reason = f", {record.reason}" if record.reason else ""
    return strip_controls(f"{record.run_id} ({record.name}): {record.state}{reason}")


def span(seconds: float) -> str:
    """A stretch of time as `4 s`, `3:25` or `1:02:03`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
