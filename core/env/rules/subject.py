"""The profile that a rule looks at, and how the rule speaks about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import NOWHERE, Place
from ...findings import Edit, Finding, Fix, Severity
from ...origins import Sourced
from ..models.base import BaseProfile
from ..models.misfit import Misfit
from ..spellings import SPELLINGS


@dataclass(frozen=True, slots=True)
class Subject:
    """One resolved profile under check.

    Attributes:
        name: the profile.
        executor: its executor's name, known or not.
        values: its resolved keys as nested data.
        origins: dotted leaf key → where it comes from.
        model: the executor's model; None where there is no such executor.
        settings: the values as that model, without those that do not fit it; None without a model.
        misfits: what the model objects to.
        is_base: whether other profiles extend it, so that it need not be complete.
        place: where the profile's table stands.
    """

    name: str
    executor: str
    values: Mapping[str, Any]
    origins: Mapping[str, Sourced]
    model: type[BaseProfile] | None
    settings: BaseProfile | None
    misfits: tuple[Misfit, ...] = ()
    is_base: bool = False
    place: Place = NOWHERE

    def written(self, key: str) -> str:
        """The spelling under which the profile has a key."""
        names = SPELLINGS.get(key, (key,))
        return next((name for name in names if name in self.values), key)

    def texts(self) -> list[tuple[str, str]]:
        """All texts of the profile with their dotted keys, those inside lists with their index."""
        found: list[tuple[str, str]] = []
        stack: list[tuple[str, Any]] = [(key, s.value) for key, s in self.origins.items()]
        while stack:
            key, value = stack.pop()
            if isinstance(value, str):
                found.append((key, value))
            elif isinstance(value, Mapping):
                stack.extend((f"{key}.{name}", item) for name, item in value.items())
            elif isinstance(value, list):
                stack.extend((f"{key}.{n}", item) for n, item in enumerate(value))
        return found

    def finding(
        self, severity: Severity, key: str, message: str, words: str, edit: Edit | None = None
    ) -> Finding:
        """A finding about a key, at its place and of the profile that it was written in."""
        table, _, item = key.rpartition(".")
        if item.isdigit() and isinstance(self.values.get(table), str):
            key = table  # a single one, written without the brackets of a list
            edit = replace(edit, key=key) if edit else None
        origin = self._origin(key)
        layer, _, written_in = origin.layer.partition(" ") if origin else ("", "", "")
        return Finding(
            severity,
            message,
            place=origin.place if origin else self.place,
            profile=written_in if layer == "profile" else self.name,
            key=key,
            fix=Fix(words, edit),
        )

    def layer(self, key: str) -> str:
        """The layer that a key comes from: `profile NAME`, `run.env`, `command line`, …."""
        origin = self._origin(key)
        return origin.layer if origin else ""

    def _origin(self, key: str) -> Any:
        while key:
            if key in self.origins:
                return self.origins[key].origin
            inside = next((k for k in self.origins if k.startswith(f"{key}.")), None)
            if inside:
                return self.origins[inside].origin
            key = key.rpartition(".")[0]
        return None
