"""Asking for the value of a key of a profile; a secret is not taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ...core.env.edit import ProfileRow, edit_profile, override_of
from ...core.env.inherit import writes_secret
from ...core.errors import TunedeckError
from ..words import trouble
from .ask import AskText

if TYPE_CHECKING:
    from ...core.env.load import EnvFiles
    from .page import Page

_REFUSED = (
    "This is a secret, which no file may hold. Export it as a variable, and write ${oc.env:NAME} "
    "here, or add its name to 'secrets'."
)


def ask_value(
    screen: Page,
    files: EnvFiles,
    profile: str,
    row: ProfileRow,
    changes: Mapping[str, str],
    change: Callable[[str], None],
) -> None:
    """Ask for a value, with what is wrong with it seen while it is typed.

    Args:
        screen: asks.
        files: the env files that have been read.
        profile: its name.
        row: the key.
        changes: what has been changed so far: by key, overrides as `key=value`.
        change: is handed the override, where another value was typed.
    """
    before = changes.get(row.key)
    value = before.partition("=")[2] if before else row.own
    if value is None:
        value = row.value

    def is_secret(text: str) -> bool:
        return writes_secret(row.key.split("."), text)

    shown = "" if value is None or is_secret(str(value)) else str(value)

    def wrong(text: str) -> str:
        if is_secret(text):
            return _REFUSED
        tried = {**changes, row.key: override_of(row, text)}
        try:
            edited = edit_profile(files, profile, tried.values())
        except TunedeckError as error:
            return trouble(error)
        bad = [one for one in edited.findings if one.key == row.key and one.severity == "error"]
        return bad[0].message if bad else ""

    def typed(text: str | None) -> None:
        if text is not None and text != shown:
            change(override_of(row, text))

    about = f"{row.description}\n{row.type}; nothing typed takes it out of this profile"
    question = AskText(row.key, about.lstrip(), shown, wrong, keeps_wrong=True, refuses=is_secret)
    screen.app.push_screen(question, typed)
