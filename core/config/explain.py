"""Telling where each value of a config came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .compose import ComposedConfig


@dataclass(frozen=True, slots=True)
class Explained:
    """One value of a config and its history.

    Attributes:
        key: dotted leaf key.
        value: as it is used.
        layer: `config NAME`, `command line` or `default`.
        place: file, line and column, or the text of the override.
        overrode: value, layer and place of each value it took the place of, the latest first.
    """

    key: str
    value: Any
    layer: str
    place: str
    overrode: tuple[tuple[Any, str, str], ...]


def explain(composed: ComposedConfig) -> list[Explained]:
    """All values of a config with where they came from, in the order of the config."""
    return [
        Explained(
            key,
            sourced.value,
            sourced.origin.layer,
            sourced.origin.text or str(sourced.origin.place),
            tuple(
                (value, origin.layer, origin.text or str(origin.place))
                for value, origin in sourced.overrode
            ),
        )
        for key, sourced in composed.origins.items()
    ]
