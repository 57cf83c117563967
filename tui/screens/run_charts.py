"""The curves of a run: one of them, or all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.widget import Widget

from ...core.text import four_digits
from ..widgets.chart import FIRST, Chart, Line, title_of
from .ask import Choose

if TYPE_CHECKING:
    from ...core.charts.curves import Curves
    from .page import Page

MOST = 6
"""Curves that are shown at once."""


def measured(curves: Curves) -> list[str]:
    """What was measured, that which one looks at first before the rest."""
    order = {key: number for number, key in enumerate(FIRST)}
    return sorted(curves.by_key, key=lambda key: (order.get(key, len(order)), key))


def draw_one(chart: Chart, name: str, curves: Curves, key: str) -> None:
    """Draw one measured value.

    Args:
        chart: draws it.
        name: of the run.
        curves: what the run has measured.
        key: the value; an empty chart where there is none of it yet.
    """
    curve = curves.by_key.get(key)
    chart.show(key, [Line(name, curve)] if curve else [])


def draw_all(charts: Widget, name: str, curves: Curves) -> None:
    """Draw as many measured values as there are charts, and hide the charts that are left."""
    keys = measured(curves)
    for number, chart in enumerate(charts.query(Chart)):
        chart.display = number < max(len(keys), 1)
        draw_one(chart, name, curves, keys[number] if number < len(keys) else "loss")


def ask_value(screen: Page, curves: Curves, drawn: str, draw: Callable[[str | None], None]) -> None:
    """Ask which value is drawn.

    Args:
        screen: asks.
        curves: what the run has measured.
        drawn: the value that is.
        draw: is handed the chosen value, or None.
    """
    keys = measured(curves)
    if not keys:
        screen.wizard.say("Nothing has been measured yet.")
        return
    choices = [(key, f"{title_of(key)}, now {four_digits(curves.latest[key])}") for key in keys]
    screen.app.push_screen(Choose("Value to draw", choices, marked=drawn), draw)
