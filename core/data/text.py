"""A look at a data set as text: for a terminal, and without colors for a log."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from ..text import strip_controls

if TYPE_CHECKING:
    from ..chat import DataReport, InspectedRow
    from ..chat.inspector import Status
    from .look import DataLook

_BAR = 30
_MARKS: dict[Status, tuple[str, str]] = {
    "trained": ("⟦", "⟧"),
    "context": ("", ""),
    "dropped": ("~~", "~~"),
}
_STYLES: dict[Status, dict[str, Any]] = {
    "trained": {"fg": "green", "underline": True},
    "context": {},
    "dropped": {"fg": "red", "strikethrough": True},
}


def look_lines(look: DataLook, *, color: bool) -> Iterator[str]:
    """Everything but the findings, which a command prints in its own way.

    Args:
        look: the look.
        color: tell trained from context from dropped by color; without it by `⟦ ⟧` and `~~ ~~`.
    """
    yield from count_lines(look)
    if look.report.lengths:
        yield ""
        yield "Tokens a row:"
        yield from histogram_lines(look.report)
    if look.rows:
        yield ""
        yield "Tokens: " + "  ".join(_piece(text, status, color=color) for text, status in _LEGEND)
    for row in look.rows:
        yield ""
        yield from row_lines(row, color=color)


_LEGEND: tuple[tuple[str, Status], ...] = (
    ("trained", "trained"),
    ("context", "context"),
    ("beyond seq_length", "dropped"),
)


def row_lines(row: InspectedRow, *, color: bool) -> Iterator[str]:
    """One row: where it is, its counts, and its tokens or why it has none."""
    counts = ", ".join(f"{row.count(s)} {s}" for s in ("trained", "context", "dropped"))
    place = f"{row.place.file}:{row.place.line}" if row.place.file else f"row {row.place.line}"
    yield f"{place}  {counts}"
    if row.refused is not None:
        yield f"  refused: {strip_controls(row.refused.message)}"
    runs = groupby(row.tokens, key=lambda token: token.status)
    text = "".join(
        _piece("".join(token.text for token in tokens), status, color=color)
        for status, tokens in runs
    )
    yield from (f"  {line}" for line in text.splitlines())


def _piece(text: str, status: Status, *, color: bool) -> str:
    text = strip_controls(text)
    if not color:
        before, after = _MARKS[status]
        return f"{before}{text}{after}"
    # A style that runs over the end of a line would color the margin of the next one.
    lines = text.split("\n")
    return "\n".join(click.style(line, **_STYLES[status]) if line else "" for line in lines)


def count_lines(look: DataLook) -> Iterator[str]:
    """How many rows and tokens are trained on, and what is unusual."""
    report, notes = look.report, look.report.notes
    trained = f"{report.supervised_tokens} of {report.tokens} tokens trained"
    yield f"{report.trainable_rows} of {report.rows} rows trained on, {trained}"
    without = sum(r.count for reason, r in report.refused.items() if reason in _UNSUPERVISED)
    said = {
        "rows refused": report.refused_rows,
        "rows without a trained token": without + report.emptied_rows,
        "rows cut at seq_length": report.truncated_rows,
        "trained tokens lost to the cut": report.dropped_supervised,
        "rows left out for their length": report.left_out_rows,
        "turns whose stop token is not trained": notes.unstopped_turns,
        "rows with two beginning-of-text tokens": report.double_bos_rows,
    }
    yield from (f"  {count:>8}  {what}" for what, count in said.items())
    if look.padding is not None:
        yield f"  {look.padding:>8.1%}  padding {_batches(look)}"


_UNSUPERVISED = ("unsupervised", "no_assistant")


def _batches(look: DataLook) -> str:
    batches = look.batches
    if batches.packed:
        return f"with rows packed into {batches.packed} tokens"
    return f"with micro-batches of {batches.size} out of steps of {batches.step}"


def histogram_lines(report: DataReport) -> Iterator[str]:
    """How many rows have how many tokens, a bar a line."""
    bins = [one for one in report.histogram() if one.rows]
    most = max((one.rows for one in bins), default=1)
    for one in bins:
        bar = "█" * max(round(one.rows / most * _BAR), 1)
        yield f"  {one.start:>7}–{one.stop:<7} {bar} {one.rows}"
