"""Which dialog asks for a field: its choices, models, files, or a line of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core.choices import MODEL, Row, as_text, values_for
from ..screens.ask import AskText, Choose
from ..screens.browse import Browse
from .config_rows import plain_about

if TYPE_CHECKING:
    from textual.app import App

    from ..screens.launch import LaunchScreen

_BROWSE = "browse …"
_DATA = "path_or_dataset_id"

Done = Callable[[str | None], None]


def ask_for(
    app: App[Any], row: Row, walk: LaunchScreen, check: Callable[[str], str], done: Done
) -> None:
    """Ask for a field's value.

    Args:
        app: shows the dialog.
        row: the field as it is.
        walk: what has been chosen so far.
        check: tells what is wrong with a text, or nothing.
        done: is given the text, or None where it stays as it was.
    """
    info, value, catalog = row.info, as_text(row.value), walk.catalog
    offered, free = values_for(info, walk.selection, catalog) if catalog else ([], True)
    if offered and not free:
        app.push_screen(Choose(info.key, offered, marked=value), done)
    elif info.key == MODEL:
        offered.append((_BROWSE, "look through the folders of this machine"))
        screen = Choose(info.key, offered, marked=value, free=True)
        app.push_screen(screen, lambda text: _browse_or(app, row, walk, text, done))
    elif info.key.endswith(_DATA):
        _browse(app, row, walk, done, models=False)
    else:
        app.push_screen(AskText(info.key, plain_about(row), value, check), done)


def _browse_or(app: App[Any], row: Row, walk: LaunchScreen, text: str | None, done: Done) -> None:
    if text == _BROWSE:
        _browse(app, row, walk, done, models=True)
    else:
        done(text)


def _browse(app: App[Any], row: Row, walk: LaunchScreen, done: Done, *, models: bool) -> None:
    value = row.value if isinstance(row.value, str) else ""
    app.push_screen(Browse(row.info.key, value, walk.selection.cwd, models=models), done)
