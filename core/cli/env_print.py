"""How the env commands print: findings like a compiler, values with where they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text import counted
from .output import MARKS, line, note

if TYPE_CHECKING:
    from ..env.compare import Difference
    from ..env.find import FoundFiles
    from ..env.mend import Mended
    from ..findings import Finding
    from ..origins import Origin


def print_findings(findings: list[Finding]) -> None:
    """Findings as a compiler has them: place, severity, message, then the line and the fix."""
    from ..env.excerpt import Excerpts

    excerpts = Excerpts()
    for finding in findings:
        place = finding.place
        where = ":".join(
            str(part)
            for part in (short(Path(place.file)) if place.file else "", place.line, place.column)
            if part
        )
        said_of = f"  [{finding.profile}]" if finding.profile else ""
        fg = MARKS[finding.severity][1]
        line(f"{where}: {finding.severity}: {finding.message}{said_of}".lstrip(": "), fg=fg)
        for text in excerpts.show(place):
            line(f"    {text}")
        if finding.fix and finding.fix.words:
            line(f"  fix: {finding.fix.words}")


def print_summary(findings: list[Finding], found: FoundFiles) -> None:
    """How many errors and warnings, and whether `--fix` could mend some."""
    files = ", ".join(short(path) for path in found.files)
    counts = [(kind, sum(f.severity == kind for f in findings)) for kind in ("error", "warning")]
    said = ", ".join(counted(n, kind) for kind, n in counts if n)
    mendable = sum(bool(f.fix and f.fix.edit) for f in findings)
    note(f"{files}: {said or 'nothing to complain of'}.")
    if mendable:
        note(f"{mendable} of them can be mended for you: tunedeck env check --fix {files}")


def print_mended(mended: list[Mended]) -> None:
    """The diffs of mended files."""
    for one in mended:
        for text in one.diff.splitlines():
            added, removed = text.startswith("+"), text.startswith("-")
            line(text, fg="green" if added else "red" if removed else None)


def side_by_side(item: Difference) -> tuple[str, str, str]:
    """A row: the key, and on each side the value with its place."""
    a, b = (f"{shown(s.value)}  ({told(s.origin)})" if s else "" for s in (item.a, item.b))
    return item.key, a, b


def told(origin: Origin) -> str:
    """Layer, file and line of a value."""
    place = origin.place
    where = f"{short(Path(place.file))}:{place.line}" if place.file else "built in"
    return f"{origin.layer}, {where}"


def shown(value: Any) -> str:
    """A value as text; what is no text, as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def short(path: Path) -> str:
    """A path as one would type it from here."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
