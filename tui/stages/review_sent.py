"""What is sent, as a page: the payload, the script that it carries, the command, the files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ...core.submission import Submission
from ..code import code
from ..words import safe

_LONGEST = 200
"""Characters of a value that are shown in their place in a payload."""


def copied(submission: Submission) -> str:
    """What the copy key takes: the payload, the script, or the command where there is neither."""
    payload = json.dumps(submission.payload, indent=2) if submission.payload else None
    return payload or submission.script or submission.command


def sent(submission: Submission) -> Iterator[RenderableType]:
    """All of it, each thing once: long texts inside the payload stand below it, as lines."""
    if submission.payload is not None:
        below: dict[str, str] = {}
        shown = _shortened(submission.payload, submission.script, below)
        yield Text("Payload", style="bold")
        yield code(json.dumps(shown, indent=2, ensure_ascii=False), "json")
        for name, text in below.items():
            yield Text(f"\n{safe(name)}", style="bold")
            yield code(text, "bash")
    if submission.script:
        yield Text("\nScript" if submission.payload else "Script", style="bold")
        yield code(submission.script, "bash")
    yield Text("\nCommand" if submission.script or submission.payload else "Command", style="bold")
    yield code(submission.command, "bash")
    if env := submission.to_json()["env"]:
        yield Text("\nEnvironment", style="bold")
        yield Text("\n".join(f"{name}={safe(value)}" for name, value in env.items()))
    for file in submission.files:
        yield Text(f"\n{safe(file.path)}  (mode {file.mode:o})", style="bold")
        language = file.path.rpartition(".")[2]
        yield code(file.content, language if language in ("yaml", "json") else "text")


def _shortened(value: Any, script: str | None, below: dict[str, str], name: str = "") -> Any:
    """A payload whose long texts are named, and kept in `below` by that name."""
    if isinstance(value, Mapping):
        called = value.get("name")
        return {
            key: _shortened(item, script, below, str(called) if key == "value" and called else key)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_shortened(item, script, below, name) for item in value]
    if not isinstance(value, str) or len(value) <= _LONGEST:
        return value
    if value == script:
        return f"‹the script below, {len(value)} characters›"
    if "\n" not in value:
        return f"{value[: _LONGEST // 4]}… ‹{len(value)} characters, whole when copied›"
    below[name] = value
    return f"‹{name} below, {len(value)} characters›"
