"""Checking TOML tables against a model, so that every complaint has a line, a key and a remedy."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ..findings import Finding, Fix
from ..keys import dotted
from ..text import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from ..keys import KeyPath
    from ..toml.source import TomlSource


class CatalogTable(BaseModel):
    """A table of a catalog file: it knows all its keys and never changes."""

    # Only the outermost model's validator is ever run: the inner ones need none of their own.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


Model = TypeVar("Model", bound=CatalogTable)


def validate(
    model: type[Model], source: TomlSource, *, tolerant: bool, table: str | None = None
) -> tuple[Model | None, list[Finding]]:
    """Check a document, or one of its tables, against a model.

    Args:
        model: what it should be.
        source: the document.
        tolerant: drop unknown keys with a note instead of refusing them.
        table: the name of the top-level table to check; None is the whole document.

    Returns:
        The model, or None if there are errors, and all that was found.
    """
    data: Any = source.data if table is None else source.data[table]
    under: KeyPath = () if table is None else (table,)
    findings: list[Finding] = []
    while True:
        try:
            return model.model_validate(data), findings
        except ValidationError as error:
            problems = error.errors(include_url=False)
        unknown = [p["loc"] for p in problems if p["type"] == "extra_forbidden"]
        if not tolerant or not unknown:
            return None, [*(_finding(model, source, under, p) for p in problems), *findings]
        data = copy.deepcopy(data)
        for path in unknown:
            _remove(data, path)
            key = dotted((*under, *path))
            message = f"'{key}' is no key of this schema and is ignored."
            findings.append(Finding("info", message, source.locate((*under, *path)), key=key))


def _finding(
    model: type[BaseModel], source: TomlSource, under: KeyPath, problem: ErrorDetails
) -> Finding:
    path = (*under, *problem["loc"])
    message, remedy = _explain(model, dotted(path), problem)
    return Finding("error", message, source.locate(path), key=dotted(path), fix=Fix(remedy))


def _explain(model: type[BaseModel], key: str, problem: ErrorDetails) -> tuple[str, str]:
    """What is wrong, and what to do about it."""
    path, kind = problem["loc"], problem["type"]
    if kind == "missing":
        return f"'{key}' is missing.", f"Add the key '{path[-1]}'."
    if kind == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        match = nearest(str(path[-1]), known)
        remedy = f"Did you mean '{match}'?" if match else f"Known keys: {', '.join(known)}."
        return f"There is no key '{key}'.", remedy
    if kind == "tuple_type" and isinstance(problem["input"], dict):
        return f"'{key}' should be an array of tables.", f"Write its header as [[{key}]]."
    if kind == "literal_error":
        known = re.findall("'([^']*)'", problem["ctx"]["expected"])
        match = nearest(str(problem["input"]), known)
        remedy = f"Did you mean '{match}'?" if match else f"Use one of: {', '.join(known)}."
        return f"'{key}' cannot be {problem['input']!r}.", remedy
    if kind == "value_error":
        reason = str(problem["ctx"]["error"])
        return f"'{key}': {reason}" if key else reason, "Correct the value."
    if kind in ("model_type", "dict_type"):
        return f"'{key}' should be a table.", f"Write its header as [{key}], its keys below."
    wanted = problem["msg"].removeprefix("Input ")
    return f"'{key}' {wanted}, but is {problem['input']!r}.", "Correct the value."


def _fields_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that the table at `path` knows."""
    for part in path:
        if isinstance(part, str):
            model = _table_in(model.model_fields[part].annotation)
    return list(model.model_fields)


def _table_in(annotation: Any) -> type[BaseModel]:
    """The model inside `Model | None`, `tuple[Model, ...]` or `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(
        _table_in(inner) for inner in get_args(annotation) if inner not in (str, type(None), ...)
    )


def _remove(data: Any, path: KeyPath) -> None:
    for part in path[:-1]:
        data = data[part]
    del data[path[-1]]
