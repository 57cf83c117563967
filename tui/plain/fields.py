"""The fields of a config, asked one by one: the same declarations that the form is made of."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from ...core.catalog import Catalog
from ...core.choices import (
    Form,
    Row,
    as_text,
    form_of,
    look_command,
    values_for,
    with_override,
    with_value,
    without_value,
)
from ...core.cli.output import line, note, print_error, print_findings
from ...core.config_view import yaml_view
from ...core.errors import TunedeckError, UsageError
from ...core.findings import Finding
from ...core.selection import Selection
from ...core.text import did_you_mean, holds
from .ask import BACK, QUIT, Left, Session, ask, choose, sure

_ROWS = 3
_WORDS = (
    "Type a field's name to change it, key=value, or nothing to go on. Or: list tells all fields, "
    "list WORD those that have it, changed what is changed, reset FIELD undoes it, yaml tells the "
    "config with its changed lines, data looks at the rows, back, quit, ? says this."
)


def change_fields(
    session: Session, selection: Selection, catalog: Catalog, keep: Callable[[Selection], None]
) -> tuple[Selection, bool]:
    """Ask for changed fields until there are none, each checked as it is given.

    Args:
        session: what holds for all prompts.
        selection: what has been chosen so far.
        catalog: where its step is.
        keep: told of each change, so that nothing is lost.

    Returns:
        The selection, and whether one goes on (or back).

    Raises:
        Left: if the person leaves.
    """
    form = form_of(selection, catalog)
    _say([row for row in form.rows if row.common or row.changed])
    print_findings(_wrong(form))
    session.once(_WORDS)
    while text := ask("Change"):
        try:
            form = form_of(selection, catalog)
            first, _, rest = text.partition(" ")
            if text == "?":
                note(_WORDS)
                continue
            if text == QUIT:
                raise Left
            if text == BACK:
                return selection, False
            if first == "list":
                _say([r for r in form.rows if holds(f"{r.info.key} {r.info.description}", rest)])
            elif text == "changed":
                if not _say([row for row in form.rows if row.changed]):
                    note("Nothing is changed.")
            elif text == "yaml":
                for one in yaml_view(form, selection, catalog):
                    line(f"{one.mark} {one.text}")
            elif text in ("data", "data validation"):
                _look(selection, form, validation=bool(rest))
            else:
                changed = _changed(session, selection, form, catalog, text)
                if _accepted(selection, changed, catalog):
                    selection = changed
                    keep(selection)
        except TunedeckError as error:
            print_error(error)
    return selection, True


def _say(rows: list[Row]) -> bool:
    for row in rows:
        mark = " (changed)" if row.changed else ""
        wrong = f" Wrong: {row.finding.message}" if row.finding else ""
        origin = f" From {row.sourced.origin}." if row.sourced and row.changed else ""
        line(f"{row.info.key} = {as_text(row.value)}{mark}. {row.info.description}{origin}{wrong}")
    return bool(rows)


def _wrong(form: Form) -> list[Finding]:
    found = [*form.findings, *(row.finding for row in form.rows if row.finding)]
    return [finding for finding in found if finding.severity == "error"]


def _accepted(before: Selection, changed: Selection, catalog: Catalog) -> bool:
    """Whether a change makes nothing wrong, or is wanted all the same."""
    if changed == before:
        note("That is what it is already.")
        return False
    wrong = _wrong(form_of(changed, catalog))
    print_findings(wrong)
    return not wrong or sure("Keep it all the same?", default=False)


def _changed(
    session: Session, selection: Selection, form: Form, catalog: Catalog, text: str
) -> Selection:
    if "=" in text:
        return with_override(selection, text)
    first, _, rest = text.partition(" ")
    key = rest if first == "reset" else text
    row = form.row(key)
    if row is None:
        hint = did_you_mean(key, [row.info.key for row in form.rows])
        raise UsageError(f"There is no field '{key}'. {hint}".strip(), fix="Type 'list'.")
    if first == "reset":
        return without_value(selection, row.info.key)
    return with_value(selection, row.info, _value(session, row, selection, catalog))


def _value(session: Session, row: Row, selection: Selection, catalog: Catalog) -> str:
    info, now = row.info, as_text(row.value)
    default = "" if info.default is None else f" Default {as_text(info.default)}."
    line(f"{info.description} It takes: {info.type}.{default}")
    offered, free = values_for(info, selection, catalog)
    if offered:
        return choose(session, info.key, offered, now, free=free)
    return ask(info.key, now)


def _look(selection: Selection, form: Form, *, validation: bool) -> None:
    """Rows token by token, counts, lengths, and what would block a launch."""
    from ...core.data.look import look_at_data
    from ...core.data.text import look_lines

    table = "validation_dataset" if validation else "dataset"
    if not (form.values.get(table) or {}).get("path_or_dataset_id"):
        raise UsageError(f"This config names no {table}.", fix="Set its path_or_dataset_id first.")
    note(f"$ {shlex.join(look_command(selection, validation=validation))}")
    found = look_at_data(form.values, table, rows=_ROWS)
    for text in look_lines(found, color=False):
        line(text)
    print_findings(found.findings)
