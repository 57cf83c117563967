"""Env profiles and what is wrong with them, as lines of lists."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from textual.content import Content
from textual.widgets.option_list import Option

from ...core.env.excerpt import Excerpts
from ...core.findings import Finding
from ...core.inventory import tables_of
from ...core.profiles import ProfileLook, Profiles, made_for
from ...core.text import counted, holds, strip_controls
from ..words import SEVERITIES, age, cell, finding_line, safe

FILE_FINDING = "finding:"
"""Begins the ids of lines that are no profiles, and is followed by the finding's number."""

_NAME, _EXECUTOR, _SHAPE = 30, 9, 21


def file_words(profiles: Profiles) -> str:
    """The env files in use, their folder once."""
    names = ", ".join(path.name for path in profiles.files)
    folders = {path.parent for path in profiles.files}
    if len(folders) != 1:
        return ", ".join(str(path) for path in profiles.files)
    return f"{folders.pop()}/{names}" if len(profiles.files) == 1 else f"{folders.pop()}: {names}"


def profile_options(profiles: Profiles, step: str, typed: str, width: int) -> Iterator[Option]:
    """What is wrong with the files, the profiles that suit the step, then all others by file.

    Args:
        profiles: all there are.
        step: that is launched.
        typed: words, of which each must be in a profile's name, executor or place.
        width: columns that a line may take.
    """
    for number, finding in enumerate(profiles.findings):
        yield Option(finding_row(finding), id=f"{FILE_FINDING}{number}")
    found = [one for one in profiles.profiles if holds(_searched(one), typed)]
    suited = set(made_for([one.name for one in found], step))
    first = [one for one in found if one.name in suited or not one.place.file]
    groups = {f"for {step}" if suited else "built in": first}
    for one in found:
        if one not in first:
            groups.setdefault(Path(one.place.file or "").name, []).append(one)
    for title, members in groups.items():
        if members:
            heading = Content.styled(safe(title), "bold $primary")
            yield Option(heading, id=f"group:{title}", disabled=True)
            yield from (Option(_profile_row(one, width), id=one.name) for one in members)


def _searched(profile: ProfileLook) -> str:
    return f"{profile.name} {profile.executor} {profile.place}"


def _profile_row(profile: ProfileLook, width: int) -> Content:
    """Whether it is right, name, executor, shape and place; the line alone where it is tight."""
    errors = sum(finding.severity == "error" for finding in profile.findings)
    mark, color = ("✗", "$error") if errors else ("✓", "$success")
    values = profile.values
    shape = counted(values.get("nodes") or 1, "node")
    gpus = values.get("gpus_per_node")
    shape += f" × {counted(gpus, 'GPU')}" if gpus else ""
    room = max(width - _NAME - _EXECUTOR - _SHAPE - 5, 0)
    place = f"{Path(profile.place.file).name}:{profile.place.line}" if profile.place.file else ""
    if len(place) > room:
        place = f":{profile.place.line}"
    return Content.assemble(
        (f"{mark} ", color),
        (cell(profile.name, _NAME) + " ", "bold"),
        cell(profile.executor or "none", _EXECUTOR) + " ",
        (cell(shape, _SHAPE) + " ", "$text-muted"),
        (cell(place, room), "$text-muted"),
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
    """What a profile resolves to, each value with the profile and the line that it is from."""
    lines = []
    for key, sourced in profile.explained.items():
        origin = sourced.origin
        where = f"{Path(origin.place.file).name}:{origin.place.line}" if origin.place.file else ""
        lines.append(
            Content.assemble(
                (f"{safe(key):<17} ", "bold"),
                safe(sourced.value),
                (f"  {safe(origin.layer.removeprefix('profile '))} {where}", "$text-muted"),
            )
        )
    return lines


def inventory_lines(
    name: str, found: Mapping[str, Any], told_at: float, width: int
) -> list[Content]:
    """What a place said that it has, and how long ago."""
    passed = time.time() - told_at
    when = "has now" if passed < 1 else f"had {age(passed)} ago (i asks again)"
    lines = [Content.assemble((f"{safe(name)} {when}", "bold"))]
    for table in tables_of(found):
        if table.title:
            lines.append(Content.styled(f"\n{safe(table.title)}", "bold $primary"))
        head, *rows = table.lines(width - 2)
        quiet = bool(table.rows) and any(table.head)
        lines.append(Content.styled(f"  {safe(head)}", "$text-muted" if quiet else ""))
        lines += [Content(f"  {safe(text)}") for text in rows]
    return [*lines, Content("")]
