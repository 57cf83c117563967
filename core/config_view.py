"""A config as YAML, with the lines that overrides have changed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from .choices import Form, form_of

if TYPE_CHECKING:
    from .catalog import Catalog
    from .selection import Selection


@dataclass(frozen=True, slots=True)
class YamlLine:
    """A line, and whether it is as the config has it, new, or what stood there before."""

    text: str
    mark: Literal[" ", "+", "-"]


def yaml_view(form: Form, selection: Selection, catalog: Catalog) -> tuple[YamlLine, ...]:
    """The whole config of a form; what its overrides replaced stands above what they put there.

    Raises:
        UsageError: if the step or config is not there.
    """
    now = yaml_text(form.values)
    before = now
    if selection.overrides:
        before = yaml_text(form_of(replace(selection, overrides=()), catalog).values)
    lines: list[YamlLine] = []
    for text in difflib.ndiff(before.splitlines(), now.splitlines()):
        mark = text[:1]
        if mark in (" ", "+", "-"):
            lines.append(YamlLine(text[2:], " " if mark == " " else "+" if mark == "+" else "-"))
    return tuple(lines)


def yaml_text(values: Mapping[str, Any]) -> str:
    """Values as YAML, in their own order; empty where there are none."""
    import yaml

    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True) if values else ""
