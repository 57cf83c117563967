"""A log of any length: only the lines that are to be seen are ever read."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len, chop_cells
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from ...core.logs.filtered_reader import FilteredReader
from ...core.logs.log_filter import TROUBLE
from ...core.logs.spool_reader import SpoolReader
from ...core.text import counted

_TROUBLE_TEXT = re.compile(TROUBLE.pattern.decode())
_WIDEST = 4096
_QUIET = "bright_black"


class LogView(ScrollView, can_focus=True):
    """Shows the lines of a `SpoolReader`, and stays at the end while `following`.

    The owner calls `refresh_log` a few times a second. Scrolling up stops the following; End takes
    it up again. `empty` is what stands there while there is no line.
    """

    HELP = (
        "The log. It follows the run; scrolling up stops that and End goes on with it. / searches, "
        "f and F go to the next match or the one before, e and E to errors, w wraps long lines. t "
        "shows only the lines of one rank, or those that are serious; c copies what is seen."
    )
    DEFAULT_CSS = "LogView { scrollbar-size-horizontal: 0; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("end,G", "follow", "Follow", show=False, id="log.follow", tooltip="Go to the end"),
        Binding("w", "wrap", "Wrap", show=False, id="log.wrap", tooltip="Wrap long lines"),
        Binding("e", "trouble(False)", "Next error", show=False, id="log.error"),
        Binding("E", "trouble(True)", "Error before", show=False, id="log.error-back"),
        Binding("slash", "search", "Search log", show=False, id="log.search"),
        Binding("f", "again(False)", "Next match", show=False, id="log.next"),
        Binding("F", "again(True)", "Match before", show=False, id="log.before"),
        Binding(
            "t",
            "filter",
            "Filter",
            show=False,
            id="log.filter",
            tooltip="Only one rank, or what is serious",
        ),
        Binding("c", "copy", "Copy lines", show=False, id="log.copy", tooltip="Copy what is seen"),
    ]

    following = reactive(True)
    wrap = reactive(False)

    class Wanted(Message):
        """A search was asked for: the pattern, where from, and the direction."""

        def __init__(self, pattern: re.Pattern[bytes], start: int, backwards: bool) -> None:
            super().__init__()
            self.pattern, self.start, self.backwards = pattern, start, backwards

    class SearchAsked(Message):
        """The person wants to type what is searched for."""

    class FilterAsked(Message):
        """The person wants to choose which lines are shown."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.reader: SpoolReader | FilteredReader = SpoolReader(Path(os.devnull))
        self.pattern: re.Pattern[bytes] | None = None
        self.empty = ""
        self._marked: int | None = None
        self._page: list[Strip] = []
        self._page_for: tuple[object, ...] = ()
        self._seen = range(0)
        self._version = 0

    def attach(self, reader: SpoolReader | FilteredReader) -> None:
        """Show another log, or the same through a filter, indexed already; one stays in place."""
        at = self._marked if self._marked is not None else self.top
        if isinstance(self.reader, FilteredReader):
            at = self.reader.number(at) if at < len(self.reader) else 0
        was_marked = self._marked is not None
        self.reader.close()
        self.reader, self._marked = reader, None
        self._changed()
        if not self.following:
            at = reader.index_of(at) if isinstance(reader, FilteredReader) else at
            if was_marked:
                self.go_to(at)
            else:
                self.scroll_to(y=at, animate=False, immediate=True)

    def refresh_log(self) -> None:
        """Take in what the log says since, and show it if it is to be seen."""
        before = self.reader.size
        replaced = self.reader.refresh()
        if replaced:
            self._marked = None
        if replaced or self.reader.size != before:
            self._changed()

    def _changed(self) -> None:
        self._version += 1
        extra = max(self.size.height - 1, 0) if self.wrap else 0
        width = 1 if self.wrap else _WIDEST
        self.virtual_size = Size(width, len(self.reader) + extra)
        if self.following:
            self._to_end()
        self.refresh()

    def _to_end(self) -> None:
        self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True, force=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Whoever comes to the end wants to follow."""
        super().watch_scroll_y(old_value, new_value)
        if new_value > old_value and new_value >= self.max_scroll_y:
            self.following = True

    def watch_show_vertical_scrollbar(self, shown: bool) -> None:
        """The bar comes after the scrolling that the first lines have led to."""
        if shown:
            self.vertical_scrollbar.position = self.scroll_y

    # Only a person stops the following: a position that is clamped says nothing.

    def action_scroll_up(self) -> None:
        """A line up."""
        self.following = False
        super().action_scroll_up()

    def action_page_up(self) -> None:
        """A page up."""
        self.following = False
        super().action_page_up()

    def action_scroll_home(self) -> None:
        """To the first line."""
        self.following = False
        super().action_scroll_home()

    def on_mouse_scroll_up(self) -> None:
        """The wheel, upwards."""
        self.following = False

    def on_click(self, event: events.Click) -> None:
        """Mark the line that was pointed at: searches begin there."""
        number = self.top + event.get_content_offset_capture(self).y
        if not self.wrap and number < len(self.reader):
            self._mark(number)

    def on_scroll_to(self) -> None:
        """The bar was dragged; at its end, the following goes on."""
        self.following = False

    def watch_wrap(self) -> None:
        """Lay out anew."""
        if self.is_mounted:
            self.scroll_to(x=0, animate=False, immediate=True)
            self._changed()

    def on_resize(self) -> None:
        """Lay out anew, and stay at the end if that is where one was."""
        self._changed()

    def go_to(self, number: int) -> None:
        """Show a line in the middle, marked."""
        self._mark(number)
        self.scroll_to(y=max(number - self.size.height // 2, 0), animate=False, immediate=True)

    def _mark(self, number: int) -> None:
        self._marked = number
        self.following = False
        self._version += 1
        self.refresh()

    @property
    def top(self) -> int:
        """The number of the first line that is to be seen."""
        return int(self.scroll_y)

    def search(self, pattern: re.Pattern[bytes], *, backwards: bool = False) -> None:
        """Ask for the next line with a pattern, beginning beside the one that is marked."""
        if self._marked is not None:
            start = self._marked + (-1 if backwards else 1)
        else:
            # Who follows the end looks back from it; who reads looks on from where he is.
            start = len(self.reader) - 1 if backwards else self.top
        self.post_message(self.Wanted(pattern, start, backwards))

    def render_line(self, y: int) -> Strip:
        """One row of the screen."""
        size, theme = self.size, self.app.theme
        state = (self._version, self.wrap, self.following, self.has_focus, theme)
        key = (self.scroll_offset, size, *state)
        if key != self._page_for:
            self._page = self._lay_out()
            self._page_for = key
        base = self.rich_style
        if y >= len(self._page):
            return Strip.blank(size.width, base)
        return self._page[y].apply_style(base)

    def _lay_out(self) -> list[Strip]:
        """The rows of the whole screen; at the end of a wrapped log, its last row is the lowest."""
        width, height = self.size.width, self.size.height
        if not len(self.reader):
            return [_strip(self.empty, Style(color=_QUIET), width)]
        if self.wrap and self.following:
            rows: list[Strip] = []
            number = len(self.reader) - 1
            while number >= 0 and len(rows) < height:
                rows = self._rows(number, self.reader.lines(number, 1)[0], width) + rows
                number -= 1
            self._seen = range(number + 1, len(self.reader))
            return rows[-height:]
        rows = []
        number = self.top - 1
        for number, text in enumerate(self.reader.lines(self.top, height), self.top):
            rows += self._rows(number, text, width)
            if len(rows) >= height:
                break
        self._seen = range(self.top, number + 1)
        return rows[:height]

    def _rows(self, number: int, text: str, width: int) -> list[Strip]:
        text = text.expandtabs(4)
        style = self._style(number, text)
        if self.wrap:
            parts = chop_cells(text, width) if cell_len(text) > width else [text]
            return [_strip(part, style, width) for part in parts or [""]]
        left = self.scroll_offset.x
        return [Strip([Segment(text, style)]).crop_extend(left, left + width, style)]

    def _style(self, number: int, text: str) -> Style:
        if number == self._marked:
            return Style(reverse=True)
        if _TROUBLE_TEXT.search(text):
            color = self.app.theme_variables["error"]
            return Style(color=color, bold=True) if color.startswith("#") else Style(bold=True)
        return Style()

    def action_follow(self) -> None:
        """Go to the end and stay there."""
        self._marked = None
        self.following = True
        self._changed()

    def action_wrap(self) -> None:
        """Wrap long lines, or no longer."""
        self.wrap = not self.wrap

    def action_trouble(self, backwards: bool) -> None:
        """Go to an error."""
        self.search(TROUBLE, backwards=backwards or (self.following and self._marked is None))

    def action_search(self) -> None:
        """Ask for a text to look for."""
        self.post_message(self.SearchAsked())

    def action_filter(self) -> None:
        """Ask which lines are to be shown."""
        self.post_message(self.FilterAsked())

    def action_again(self, backwards: bool) -> None:
        """Go to another match of the last search."""
        if self.pattern is None:
            self.action_search()
        else:
            self.search(self.pattern, backwards=backwards)

    def action_copy(self) -> None:
        """Copy the lines that are to be seen."""
        seen = self._seen
        self.app.copy_to_clipboard("\n".join(self.reader.lines(seen.start, len(seen))))
        self.app.notify(f"Copied {counted(len(seen), 'line')}.", markup=False)


def _strip(text: str, style: Style, width: int) -> Strip:
    return Strip([Segment(text, style)]).adjust_cell_length(width, style)
