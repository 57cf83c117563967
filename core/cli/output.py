"""How commands print: results on stdout, everything else on stderr, and nothing but text.

Whatever did not come from Tunedeck itself (a file's line, a service's message) is stripped of
control sequences before a terminal sees it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..text import strip_controls

if TYPE_CHECKING:
    from ..errors import Place, TunedeckError
    from ..findings import Finding, Severity

MARKS: dict[Severity, tuple[str, str]] = {
    "error": ("✗", "red"),
    "warning": ("!", "yellow"),
    "info": ("·", "blue"),
}
"""A mark beside every color: color alone tells nothing on a terminal without it."""

_NARROWEST = 16


def color_wanted() -> bool | None:
    """False where the user wants no color, None where the stream is to decide."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def line(text: str = "", *, bold: bool = False, fg: str | None = None, err: bool = False) -> None:
    """Print a line of a result, or with `err` of what is said beside it."""
    click.secho(strip_controls(text), bold=bold, fg=fg, err=err, color=color_wanted())


def note(text: str) -> None:
    """Say something beside the result, on stderr."""
    line(text, err=True)


def print_json(document: Any) -> None:
    """Print one JSON document on stdout. Paths become strings."""
    click.echo(json.dumps(document, indent=2, default=str))


def print_json_line(document: Any) -> None:
    """Print one object of a stream on stdout, as one line that is flushed."""
    click.echo(json.dumps(document, separators=(",", ":"), default=str))


def width() -> int:
    """Columns that text may take: the terminal's, but no fewer or more than can be read well."""
    return max(40, min(shutil.get_terminal_size((100, 24)).columns, 100))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows under headings: drawn on a terminal, plain aligned columns elsewhere.

    Args:
        columns: the headings.
        rows: a cell per column. None is an empty cell; a list is drawn an item a line.
    """
    if sys.stdout.isatty():
        _print_drawn(columns, [[_cell(value, "\n") for value in row] for row in rows])
        return
    cells = [[_cell(value, ", ") for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in (columns, *cells):
        padded = (cell.ljust(size) for cell, size in zip(row, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def _cell(value: Any, between: str) -> str:
    items = value if isinstance(value, list | tuple) else ["" if value is None else value]
    return between.join(strip_controls(str(item)).replace("\n", " ") for item in items)


def print_error(error: TunedeckError) -> None:
    """Say what is wrong, where, and what to do about it, on stderr."""
    print_problem("error", error.message, place=error.place, fix=error.fix)


def print_findings(findings: Iterable[Finding]) -> None:
    """Say what a check found, on stderr, one after the other."""
    for finding in findings:
        print_problem(
            finding.severity,
            finding.message,
            place=finding.place,
            fix=finding.fix.words if finding.fix else "",
        )


def print_problem(severity: Severity, message: str, *, place: Place | None, fix: str) -> None:
    """Print as compilers do: what, where with the line itself, and the remedy."""
    mark, fg = MARKS[severity]
    head = click.style(f"{mark} {severity}:", fg=fg, bold=True)
    click.echo(f"{head} {strip_controls(message)}", err=True, color=color_wanted())
    if place is not None and place.file:
        from .excerpt import excerpt

        note(f"  at {place}")
        for text in excerpt(place):
            note(f"    {text}")
    for index, text in enumerate(fix.splitlines()):
        note(f"  {'fix:' if index == 0 else '    '} {text}")


def _print_drawn(columns: Sequence[str], cells: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for index, column in enumerate(table.columns):
        column.overflow = "fold"
        column.no_wrap = index == 0 or any("\n" in row[index] for row in cells)
        column.min_width = min(_NARROWEST, max((len(row[index]) for row in cells), default=0))
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
