"""A chart of one value over the steps, for one run or for several laid over each other."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Span, Text
from textual.message import Message
from textual.widget import Widget

from ...core.charts.plot import COLORS, Line, draw
from ...core.text import four_digits

_TITLES = {
    "loss": "training loss",
    "val_loss": "validation loss",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_s": "tokens a second",
    "supervised_tokens_per_s": "trained tokens a second",
    "mem_gib": "memory in GiB",
    "mfu": "model FLOPs utilization",
}
FIRST = ("loss", "val_loss", "lr", "grad_norm", "tokens_per_s", "mem_gib")
"""The values that one looks at first, in this order."""

_SMALLEST = (24, 4)
_QUIET = "bright_black"

__all__ = ["FIRST", "Chart", "Line", "title_of"]


def title_of(key: str) -> str:
    """A measured value in words."""
    return _TITLES.get(key, key.replace("_", " "))


class Chart(Widget):
    """Draws the curves it was last given; a click asks for another value."""

    class Clicked(Message):
        """Another value is wanted."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._key = "loss"
        self._lines: Sequence[Line] = ()

    def show(self, key: str, lines: Sequence[Line]) -> None:
        """Draw other curves, or the same ones that have grown."""
        self._key, self._lines = key, lines
        self.refresh()

    def on_click(self) -> None:
        """Pass it on to whoever knows what there is to draw."""
        self.post_message(self.Clicked())

    def render(self) -> Text:
        """A title with the newest values, and the curves; a sentence while there are none."""
        width, height = self.size
        drawn = [line for line in self._lines if line.curve.values]
        title = Text(title_of(self._key), style="bold", no_wrap=True)
        if not drawn or width < _SMALLEST[0] or height < _SMALLEST[1]:
            return title.append("  nothing measured yet" if not drawn else "", _QUIET)
        for index, line in enumerate(drawn):
            number = f"{index + 1} {line.label} " if len(drawn) > 1 else ""
            words = f"   {number}{four_digits(line.curve.values[-1])}"
            title.append(words, COLORS[index % len(COLORS)])
        if broken := sum(len(line.curve.broken) for line in self._lines):
            title.append(f"   × {broken} not finite", "bold red")
        title.truncate(width, overflow="ellipsis")
        plot = draw(drawn, width, height - 1)
        # A dimmed color is another one in each theme, and not always one that can be read.
        plot.spans = [
            Span(one.start, one.end, _QUIET) if one.style == "dim" else one for one in plot.spans
        ]
        return Text("\n").join([title, plot])
