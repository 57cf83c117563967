"""Env profiles and what is wrong with them, as lines of lists."""

from __future__ import annotations

from textual.content import Content

from ...core.env.excerpt import Excerpts
from ...core.findings import Finding
from ...core.profiles import ProfileLook
from ...core.text import strip_controls
from ..words import SEVERITIES, cell, finding_line, safe


def profile_row(profile: ProfileLook, width: int) -> Content:
    """A profile in the list: whether it is right, its name, executor, shape and place."""
    errors = sum(finding.severity == "error" for finding in profile.findings)
    mark, color = ("✗", "$error") if errors else ("✓", "$success")
    values = profile.values
    shape = f"{values.get('nodes') or 1} node(s)"
    gpus = values.get("gpus_per_node")
    shape += f" × {gpus} GPU(s)" if gpus else ""
    place = str(profile.place) if profile.place.file else "built in"
    return Content.assemble(
        (f"{mark} ", color),
        (cell(profile.name, 24) + " ", "bold"),
        cell(profile.executor or "no executor", 10) + " ",
        (cell(shape, 21) + " ", "$text-muted"),
        (cell(place.rpartition("/")[2], max(width - 62, 8)), "$text-muted"),
    )


def finding_row(finding: Finding) -> Content:
    """A finding in the list: how bad, whether a key mends it, where, and what."""
    mark, color = SEVERITIES[finding.severity]
    line = f"{safe(finding.place).rpartition('/')[2]} " if finding.place.file else ""
    mendable = finding.fix is not None and finding.fix.edit is not None
    return Content.assemble(
        (f"{mark} {finding.severity} ", f"bold {color}"),
        ("x fixes " if mendable else "", "bold $accent"),
        (line, "$text-muted"),
        (f"{safe(finding.key)} " if finding.key else "", "bold"),
        safe(finding.message),
    )


def finding_lines(finding: Finding | None) -> list[Content]:
    """A finding in full, with its line of the file."""
    if finding is None:
        return []
    lines = [Content(f"    {strip_controls(text)}") for text in Excerpts().show(finding.place)]
    return [finding_line(finding), *lines, Content("")]


def value_lines(profile: ProfileLook) -> list[Content]:
    """What a profile resolves to, each value with where it is from."""
    return [
        Content.assemble(
            (f"{key} ", "bold"),
            safe(sourced.value),
            (f"  {safe(sourced.origin)}", "$text-muted"),
        )
        for key, sourced in profile.explained.items()
    ]
