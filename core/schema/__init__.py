"""Training configs as typed tables. Importing this package costs nothing; a schema, pydantic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .base import Table
    from .inspect import InspectConfig
    from .merge import MergeConfig
    from .train import TrainConfig

__all__ = ["SCHEMAS", "InspectConfig", "MergeConfig", "TrainConfig", "schema_for"]

_HOMES = {"TrainConfig": "train", "MergeConfig": "merge", "InspectConfig": "inspect"}


def __getattr__(name: str) -> type[Table]:
    import importlib

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    schema: type[Table] = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return schema


class _Schemas(Mapping[str, "type[Table]"]):
    """Recipe name → schema, imported when it is asked for."""

    _names: ClassVar = {
        "sft": "TrainConfig",
        "merge_lora": "MergeConfig",
        "inspect": "InspectConfig",
    }

    def __getitem__(self, recipe: str) -> type[Table]:
        return __getattr__(self._names[recipe])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


SCHEMAS: Mapping[str, type[Table]] = _Schemas()
"""The schema of each recipe."""


def schema_for(recipe: str | None) -> type[Table] | None:
    """The schema of a recipe; None where there is none, as for steps of other catalogs."""
    return SCHEMAS.get(recipe) if recipe else None
