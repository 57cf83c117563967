"""Values that someone was meant to replace."""

from __future__ import annotations

from collections.abc import Iterable

from ...findings import Finding
from ..placeholder import placeholder_in
from .subject import Subject

_COMMANDS = ("startup_commands", "setup_lines", "run_command", "pre_launch_commands")


def placeholders(subject: Subject) -> Iterable[Finding]:
    """Any text that still is, or still holds, a placeholder.

    What begins with a value that is a placeholder is not said again: it goes with it.
    """
    roots: list[str] = []
    for key, text in sorted(subject.texts(), key=lambda pair: len(pair[1])):
        found = placeholder_in(text, command=key.split(".")[0] in _COMMANDS)
        if found is None or any(text.startswith((f"{root}/", f"{root}:")) for root in roots):
            continue
        roots.append(text)
        shown = text if len(text) <= 80 else found
        yield subject.finding(
            "error",
            key,
            f"'{key}' is still a placeholder: '{shown}'.",
            "Put the value of your site in its place, or set the environment variable that it "
            "is read from.",
        )
