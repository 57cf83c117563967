"""Curves drawn with braille dots: two dots wide and four high a character."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from ..text import four_digits
from .curves import Curve

COLORS = ("cyan", "yellow", "magenta", "green", "blue")
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_LABEL = 8


@dataclass(frozen=True, slots=True)
class Line:
    """A curve and whose it is."""

    label: str
    curve: Curve


def draw(lines: Sequence[Line], width: int, height: int) -> Text:
    """Curves in one frame, with the values at the left and the steps below.

    Each curve is reduced to the lowest and highest of every dot column, so that spikes stay. Of
    several, each ends in its number, so that they can be told apart without color.

    Args:
        lines: at least one, each with at least one point.
        width: columns in all; at least 16.
        height: rows in all; at least 3.
    """
    across, down = width - _LABEL - 1, height - 1
    canvas = _Canvas(across, down)
    reduced = [line.curve.reduced(across * 2) for line in lines]
    low_x, high_x = min(s[0] for s, _ in reduced), max(s[-1] for s, _ in reduced)
    low_y, high_y = min(min(v) for _, v in reduced), max(max(v) for _, v in reduced)
    span_x = (high_x - low_x) or 1
    # Of a value near the largest there is, the span would be infinite: halve before subtracting.
    span_y = high_y / 2 - low_y / 2
    for index, (steps, values) in enumerate(reduced):
        dots = [
            (
                round((step - low_x) / span_x * (across * 2 - 1)),
                _row(value, low_y, span_y, down * 4 - 1),
            )
            for step, value in zip(steps, values, strict=True)
        ]
        for start, end in zip(dots, dots[1:] or dots, strict=False):
            canvas.line(start, end, index)
        if len(lines) > 1:
            canvas.mark(dots[-1], str(index + 1), index)
    return _framed(canvas, (low_y, high_y), (low_x, high_x))


def _row(value: float, low: float, half_span: float, last: int) -> int:
    if half_span <= 0:
        return last // 2
    return last - round((value / 2 - low / 2) / half_span * last)


class _Canvas:
    """Characters of dots, each in the color of what was drawn there last."""

    def __init__(self, across: int, down: int) -> None:
        self.across, self.down = across, down
        self._bits = [[0] * across for _ in range(down)]
        self._color = [[0] * across for _ in range(down)]
        self._marks: dict[tuple[int, int], str] = {}

    def line(self, start: tuple[int, int], end: tuple[int, int], color: int) -> None:
        """A straight line between two dots."""
        (x, y), (to_x, to_y) = start, end
        count = max(abs(to_x - x), abs(to_y - y), 1)
        for part in range(count + 1):
            self._dot(
                x + round((to_x - x) * part / count), y + round((to_y - y) * part / count), color
            )

    def mark(self, at: tuple[int, int], text: str, color: int) -> None:
        """A character in place of the dots around a dot."""
        column, row = at[0] // 2, at[1] // 4
        while (row, column) in self._marks and column > 0:
            column -= 1
        self._marks[row, column] = text
        self._color[row][column] = color

    def _dot(self, x: int, y: int, color: int) -> None:
        row, column = y // 4, x // 2
        self._bits[row][column] |= _DOTS[x % 2][y % 4]
        self._color[row][column] = color

    def row(self, number: int) -> Text:
        """One row of characters."""
        text = Text(no_wrap=True)
        for column, bits in enumerate(self._bits[number]):
            mark = self._marks.get((number, column))
            color = COLORS[self._color[number][column] % len(COLORS)]
            if mark:
                text.append(mark, f"bold reverse {color}")
            else:
                text.append(chr(0x2800 + bits) if bits else " ", color)
        return text


def _framed(canvas: _Canvas, values: tuple[float, float], steps: tuple[int, int]) -> Text:
    low, high = values
    ticks = {0: high, canvas.down - 1: low}
    if canvas.down >= 7:
        ticks[canvas.down // 2] = high / 2 + low / 2
    text = Text(no_wrap=True)
    for number in range(canvas.down):
        label = four_digits(ticks[number]) if number in ticks else ""
        text.append(f"{label:>{_LABEL}}", "dim")
        text.append("┤" if number in ticks else "│", "dim")
        text.append_text(canvas.row(number))
        text.append("\n")
    first, last = str(steps[0]), f"step {steps[1]}"
    text.append(" " * _LABEL + "└" + first + last.rjust(canvas.across - len(first)), "dim")
    return text
