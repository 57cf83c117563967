"""The keys of a profile, as lines of its form."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from textual.content import Content
from textual.widgets.option_list import Option

from ...core.env.edit import ProfileRow
from ...core.findings import Finding
from ...core.text import holds, strip_controls
from ..words import cell, finding_line, safe


def key_options(
    rows: Collection[ProfileRow],
    changes: Mapping[str, str],
    findings: Collection[Finding],
    typed: str,
    width: int,
) -> Iterator[Option]:
    """The keys that are set or changed, then those that may be set.

    Args:
        rows: all keys.
        changes: by key, overrides as `key=value`.
        findings: what is wrong with the profile as it would be.
        typed: words, of which each must be in a key or its description.
        width: columns that a line may take.
    """
    found = [row for row in rows if holds(f"{row.key} {row.description}", typed)]
    for unset, title in ((False, "set"), (True, "may be set")):
        own = [row for row in found if (row.value is None and row.key not in changes) == unset]
        if own:
            heading = Content.styled(title, "bold $primary")
            yield Option(heading, id=f"title:{title}", disabled=True)
            for row in own:
                yield Option(_line(row, changes.get(row.key), findings, width), id=row.key)


def _line(
    row: ProfileRow, change: str | None, findings: Collection[Finding], width: int
) -> Content:
    wrong = any(one.key == row.key and one.severity == "error" for one in findings)
    changed = change is not None
    mark, color = ("✗", "$error") if wrong else ("✎", "$warning") if changed else (" ", "")
    first = min(34, width // 2)
    value = "–" if row.value is None else str(row.value)
    if change is not None:
        value = change.partition("=")[2]
    elif row.own is not None:
        mark, color = ("•", "$accent") if mark == " " else (mark, color)
    return Content.assemble(
        (f"{mark} {cell(row.key, first)} ", color),
        (cell(value, max(width - first - 3, 4)), "bold" if changed else "$text-muted"),
    )


def head_line(changes: Mapping[str, str], findings: Collection[Finding]) -> Content:
    """How much is changed, and how much would be wrong."""
    wrong = sum(finding.severity == "error" for finding in findings)
    parts: list[str | tuple[str, str]] = [
        (f"{len(changes)} changed", "$warning" if changes else "$text-muted"),
        ("   w writes them" if changes else "", "$accent"),
    ]
    if wrong:
        parts.append((f"   ✗ {wrong} wrong as it would be", "bold $error"))
    return Content.assemble(*parts)


def about_key(row: ProfileRow, findings: Collection[Finding]) -> Content:
    """A key with its type and origin, what it is for, and what is wrong with it."""
    origin = f"  from {safe(row.sourced.origin)}" if row.sourced else ""
    lines = [
        Content.assemble((row.key, "bold"), (f"  {row.type}{origin}", "$text-muted")),
        Content(strip_controls(row.description)),
    ]
    lines += [finding_line(one) for one in findings if one.key == row.key]
    return Content("\n").join(lines)
