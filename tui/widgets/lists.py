"""Filling a list anew while somebody has a line of it marked."""

from __future__ import annotations

from collections.abc import Iterable

from textual.widgets import OptionList
from textual.widgets.option_list import Option


def refill(listed: OptionList, options: Iterable[Option], *wanted: str | None) -> bool:
    """Show other lines, with the first that is wanted and there marked; else the first of all.

    Args:
        listed: the list.
        options: its lines, each with an id; headings are disabled.
        wanted: ids, the dearest first.

    Returns:
        Whether there is any line that can be marked.
    """
    listed.set_options(options)
    usable = [option.id for option in listed.options if not option.disabled]
    at = next((name for name in wanted if name in usable), usable[0] if usable else None)
    listed.highlighted = None if at is None else listed.get_option_index(at)
    return bool(usable)


def marked_id(listed: OptionList) -> str | None:
    """The id of the line that is marked, None where none is."""
    option = listed.highlighted_option
    return option.id if option else None
