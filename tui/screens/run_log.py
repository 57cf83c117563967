"""What is asked of a run's log: a text to look for, the lines to show."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from .ask import AskText, Choose
from .run_lines import Lines, offered

if TYPE_CHECKING:
    from ...core.runs.record import RunRecord
    from ..widgets.log_view import LogView
    from .page import Page


def ask_search(screen: Page, log: LogView) -> None:
    """Ask for a text, and look for it: backwards where the newest lines are shown."""

    def typed(text: str | None) -> None:
        if text:
            log.pattern = re.compile(re.escape(text.encode()), re.IGNORECASE)
            log.search(log.pattern, backwards=log.following)

    about = "Text to look for in the log, capitals or not. f goes to the next one, F back."
    screen.app.push_screen(AskText("Search the log", about, ""), typed)


def ask_lines(
    screen: Page, record: RunRecord, shown: Callable[[], Lines], show: Callable[[Lines], None]
) -> None:
    """Ask which lines of a log to show.

    Args:
        screen: asks.
        record: the run whose log it is.
        shown: tells which lines are shown.
        show: is handed other lines, where others are chosen.
    """
    by_name = {str(one): one for one in offered(record)}

    def chosen(name: str | None) -> None:
        if name is not None and by_name[name] != shown():
            show(by_name[name])

    choices = [(name, "") for name in by_name]
    screen.app.push_screen(Choose("Lines to show", choices, marked=str(shown())), chosen)
