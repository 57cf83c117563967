"""A profile's values against its model: what fits, and what does not in words of ours."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .base import BaseProfile


@dataclass(frozen=True, slots=True)
class Misfit:
    """One thing that a model objects to.

    Attributes:
        key: dotted, with indexes: `mounts.0.mount_path`.
        kind: `unknown` (no such key), `missing` (inside a list's table) or `wrong`.
        value: what is there.
        wanted: what should be, to follow 'must be'.
        choices: the values that there are, where they are few.
        mended: the value meant, where that is beyond doubt.
    """

    key: str
    kind: str
    value: Any = None
    wanted: str = ""
    choices: tuple[str, ...] = ()
    mended: Any = None


_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text in quotes",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
}


def fit(
    model: type[BaseProfile], values: Mapping[str, Any]
) -> tuple[BaseProfile, tuple[Misfit, ...]]:
    """The values as a model, those that do not fit left out, and what was wrong with them."""
    given = {key: value for key, value in values.items() if value is not None}
    try:
        return model.model_validate(given), ()
    except ValidationError as error:
        misfits: dict[str, Misfit] = {}
        details = error.errors(include_url=False)
        for detail in details:
            misfit = _misfit(given, detail)
            misfits.setdefault(misfit.key, misfit)
        wrong = {detail["loc"][0] for detail in details}
        fitting = {key: value for key, value in given.items() if key not in wrong}
        return model.model_validate(fitting), tuple(misfits.values())


def _misfit(given: Mapping[str, Any], detail: ErrorDetails) -> Misfit:
    kind = {"extra_forbidden": "unknown", "missing": "missing"}.get(detail["type"], "wrong")
    key = _key(given, detail["loc"], whole=kind != "wrong")
    context = detail.get("ctx", {})
    if detail["type"] == "literal_error":
        choices = tuple(re.findall(r"'([^']*)'", context["expected"]))
        return Misfit(key, kind, detail["input"], f"one of {', '.join(choices)}", choices)
    if detail["type"] == "greater_than_equal":
        return Misfit(key, kind, detail["input"], f"{context['ge']} or more")
    wanted = _WANTED.get(detail["type"].partition("_")[0], "a whole number")
    return Misfit(key, kind, detail["input"], wanted, mended=_mended(wanted, detail["input"]))


def _key(given: Mapping[str, Any], location: tuple[str | int, ...], *, whole: bool) -> str:
    """The dotted key of a location; pydantic's names for the branches of a union left out."""
    parts: list[str | int] = []
    value: Any = given
    for n, part in enumerate(location):
        last = whole and n == len(location) - 1
        inside = part in value if isinstance(value, Mapping) else False
        within = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if not (inside or within or last):
            break
        parts.append(part)
        value = value[part] if inside or within else None
    return ".".join(str(part) for part in parts)


def _mended(wanted: str, value: Any) -> Any:
    """TOML reads an unquoted 04:00:00 as a time of day; a single mount may lack its brackets."""
    if isinstance(value, datetime.time) and wanted == _WANTED["string"]:
        return value.isoformat()
    if isinstance(value, dict) and wanted == _WANTED["list"]:
        return [value]
    return None
