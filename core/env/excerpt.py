"""The line of an env file that a finding points at, without the secrets in it."""

from __future__ import annotations

from pathlib import Path

from ..errors import Place, UsageError
from ..secrets import mask_text, secret_texts
from ..toml.source import read_toml

_WIDTH = 96


class Excerpts:
    """Shows lines of files. Each file is read and masked once."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[list[str], list[str]]] = {}

    def show(self, place: Place) -> list[str]:
        """The line at a place, and a caret below its column; nothing where it cannot be shown."""
        if place.file is None or place.line is None:
            return []
        if place.file not in self._files:
            self._files[place.file] = _lines(place.file)
        lines, masked = self._files[place.file]
        if not place.line <= len(masked):
            return []
        shown = masked[place.line - 1].replace("\t", " ")
        before = (place.column or 1) - 1
        start = max(0, before - _WIDTH // 2) if before >= _WIDTH else 0
        excerpt = [shown[start : start + _WIDTH].rstrip()]
        moved = lines[place.line - 1][:before] != masked[place.line - 1][:before]
        if place.column is not None and not moved:
            excerpt.append(" " * (before - start) + "^")
        return excerpt


def _lines(file: str) -> tuple[list[str], list[str]]:
    """The lines of a file as they are and masked; none if a secret takes several of them."""
    try:
        source = read_toml(Path(file))
        secrets = secret_texts(source.data)
        lines = source.lines
    except UsageError:
        secrets = frozenset()
        try:
            lines = Path(file).read_text(encoding="utf-8-sig", errors="replace").split("\n")
        except OSError:
            return [], []
    masked = mask_text("\n".join(lines), secrets).split("\n")
    return (lines, masked) if len(masked) == len(lines) else ([], [])
