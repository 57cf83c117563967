"""Which dialog asks for a field: its choices, models, files, or a line of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core.choices import Row, as_text
from ..screens.ask import AskText, Choose
from ..screens.browse import Browse
from .config_rows import plain_about

if TYPE_CHECKING:
    from textual.app import App

    from ..screens.launch import LaunchScreen

_BROWSE = "browse …"
_MODEL = "model.pretrained_model_name_or_path"
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
    info, value = row.info, as_text(row.value)
    if info.choices:
        choices = [(as_text(choice), "") for choice in info.choices]
        if info.nullable:
            choices.append(("null", "no value"))
        app.push_screen(Choose(info.key, choices, marked=value), done)
    elif info.key == _MODEL:
        screen = Choose(info.key, _models(walk), marked=value, free=True)
        app.push_screen(screen, lambda text: _browse_or(app, row, walk, text, done))
    elif info.key.endswith(_DATA):
        _browse(app, row, walk, done, models=False)
    else:
        app.push_screen(AskText(info.key, plain_about(row), value, check), done)


def _models(walk: LaunchScreen) -> list[tuple[str, str]]:
    """What the step knows, and what is on this machine; any folder or id may be typed besides."""
    from ...core.models import cached_models, local_models

    known = walk.catalog.find(walk.selection.step).manifest.models if walk.catalog else ()
    named = [
        (model.name, f"{model.min_gpus or 'no'} GPU(s) at least. {model.description}")
        for model in known
    ]
    named += [(name, "a folder here") for name in local_models(walk.selection.cwd)]
    named += [(name, "in this machine's cache") for name in cached_models()]
    return [*named, (_BROWSE, "look through the folders of this machine")]


def _browse_or(app: App[Any], row: Row, walk: LaunchScreen, text: str | None, done: Done) -> None:
    if text == _BROWSE:
        _browse(app, row, walk, done, models=True)
    else:
        done(text)


def _browse(app: App[Any], row: Row, walk: LaunchScreen, done: Done, *, models: bool) -> None:
    value = row.value if isinstance(row.value, str) else ""
    app.push_screen(Browse(row.info.key, value, walk.selection.cwd, models=models), done)
