"""Where a resolved value came from, and what it replaced on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import NOWHERE, Place


@dataclass(frozen=True, slots=True)
class Origin:
    """One layer's say about one key.

    Attributes:
        layer: `step`, `profile NAME`, `config NAME`, `run.env`, `command line` or `default`.
        place: file, line and column; for the command line, the override is in `text`.
        text: the override as it was typed, for the command line.
    """

    layer: str
    place: Place = NOWHERE
    text: str | None = None

    def __str__(self) -> str:
        where = self.text or str(self.place)
        return f"{self.layer} ({where})" if where else self.layer


@dataclass(frozen=True, slots=True)
class Sourced:
    """A resolved leaf value, its origin, and the origins it overrode (the latest first)."""

    value: Any
    origin: Origin
    overrode: tuple[tuple[Any, Origin], ...] = field(default=())
