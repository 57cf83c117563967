"""How facts read on the screen: states, ages, errors. Outside text is made safe here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from ..core.errors import TunedeckError
from ..core.states import RunState
from ..core.text import strip_controls

if TYPE_CHECKING:
    from ..core.findings import Finding

MARKS = {
    RunState.DRAFT: ("✎", "$text-muted"),
    RunState.SUBMITTING: ("◌", "$warning"),
    RunState.QUEUED: ("◌", "$warning"),
    RunState.STARTING: ("◔", "$warning"),
    RunState.RUNNING: ("●", "$accent"),
    RunState.STOPPING: ("◔", "$warning"),
    RunState.SUCCEEDED: ("✓", "$success"),
    RunState.FAILED: ("✗", "$error"),
    RunState.LOST: ("✗", "$error"),
    RunState.CANCELLED: ("✗", "$warning"),
    RunState.PREEMPTED: ("!", "$warning"),
}
"""A mark and a color a state: without colors the mark and the word still tell."""

SEVERITIES = {"error": ("✗", "$error"), "warning": ("!", "$warning"), "info": ("·", "$accent")}


def safe(text: object) -> str:
    """Outside text on one line, without anything that a terminal would act on."""
    return strip_controls(str(text)).replace("\n", " ").replace("\t", " ")


def cell(text: object, width: int) -> str:
    """A text cut or filled to a number of terminal columns; wide characters count as two."""
    plain = safe(text)
    fitted = set_cell_size(plain, max(width, 0))
    return fitted if fitted.rstrip() == plain.rstrip() or width < 2 else _cut(plain, width)


def _cut(text: str, width: int) -> str:
    return set_cell_size(set_cell_size(text, width - 1).rstrip() + "…", width)


def path_cell(text: str, width: int) -> str:
    """A value in a cell; of a path that is too long the end is kept, which tells it from others."""
    plain = safe(text)
    if not plain.startswith(("/", "~")) or cell_len(plain) <= width:
        return cell(plain, width)
    while plain and cell_len(plain) > width - 1:
        plain = plain[1:]
    slash = plain.find("/")
    plain = plain[slash:] if 0 < slash < len(plain) // 2 else plain
    return set_cell_size(f"…{plain}", max(width, 0))


def state(run_state: RunState) -> Content:
    """A state as mark and word."""
    mark, color = MARKS[run_state]
    return Content.assemble((f"{mark} {run_state}", color))


def age(seconds: float) -> str:
    """How long ago, in the one unit that matters: `5s`, `12m`, `3h`, `9d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"


def trouble(error: TunedeckError | OSError) -> str:
    """An error as one text: what, where, and what to do."""
    if isinstance(error, TunedeckError):
        return strip_controls(f"{error}\n{error.fix}".strip())
    return strip_controls(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def foreseen(error: TunedeckError | OSError) -> TunedeckError:
    """What the system says of a file or a network as an error of our own."""
    return error if isinstance(error, TunedeckError) else TunedeckError(trouble(error))


def goes_on() -> list[str]:
    """Which runs go on without the wizard, and how to see them; nothing where that is not known."""
    from ..core.runs.registry import Registry

    try:
        records = Registry().list(limit=50)
    except TunedeckError:
        return []
    return [
        f"{one.run_id} ({safe(one.name)}) goes on. See it: tunedeck runs logs -f {one.run_id}"
        for one in records
        if not one.state.terminal
    ]


def finding_line(finding: Finding) -> Content:
    """A finding as mark, severity, key and message, with the remedy below."""
    mark, color = SEVERITIES[finding.severity]
    parts: list[str | tuple[str, str]] = [(f"{mark} {finding.severity} ", f"bold {color}")]
    if finding.key:
        parts.append((f"{safe(finding.key)} ", "bold"))
    parts.append(strip_controls(finding.message))
    if finding.place.file:
        parts.append((f"\n  at {safe(finding.place)}", "$text-muted"))
    if finding.fix and finding.fix.words:
        parts.append((f"\n  fix: {strip_controls(finding.fix.words)}", "$text-muted"))
    return Content.assemble(*parts)
