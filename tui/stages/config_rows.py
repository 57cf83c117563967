"""The fields of a config as lines of a list."""

from __future__ import annotations

from collections.abc import Iterator

from textual.content import Content
from textual.widgets.option_list import Option

from ...core.choices import Row, as_text
from ...core.text import strip_controls
from ..words import cell, finding_line, path_cell, safe


def options(rows: list[Row], width: int) -> Iterator[Option]:
    """Rows below the headings of their groups; a group stands where its first row does."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault("most used" if row.common else row.group or "run", []).append(row)
    for name, members in groups.items():
        yield Option(Content.styled(name, "bold $primary"), id=f"group:{name}", disabled=True)
        for row in members:
            yield Option(_line(row, width), id=row.info.key)


def _line(row: Row, width: int) -> Content:
    mark, color = (" ", "$text")
    if row.changed:
        mark, color = "✎", "$warning"
    if row.finding and row.finding.severity == "error":
        mark, color = "✗", "$error"
    key = row.info.key if row.common else row.info.key.rpartition(".")[2]
    wide = min(38, width // 2)
    value = "" if row.value is None else as_text(row.value)
    return Content.assemble(
        (f"{mark} {cell(key, wide)} ", color if mark != " " else ""),
        (path_cell(value or "–", width - wide - 3), "bold" if row.changed else "$text-muted"),
    )


def about(row: Row) -> Content:
    """What there is to know of a field: its type, default and origin, and what is wrong."""
    origin = f"  from {safe(row.sourced.origin)}" if row.sourced else ""
    default = "" if row.info.default is None else f"  default {as_text(row.info.default)}"
    parts: list[Content] = [
        Content.assemble(
            (row.info.key, "bold"), (f"  {row.info.type}{default}{origin}", "$text-muted")
        ),
        Content(strip_controls(row.info.description)),
    ]
    if row.finding:
        parts.append(finding_line(row.finding))
    return Content("\n").join(parts)


def plain_about(row: Row) -> str:
    """The same in plain words, for the dialog that asks for a value."""
    examples = ", ".join(as_text(example) for example in row.info.examples)
    return (
        f"{row.info.description}\n{row.info.type}"
        + (f"; default {as_text(row.info.default)}" if row.info.default is not None else "")
        + (f"; such as {examples}" if examples else "")
    )
