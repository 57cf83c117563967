"""A look at the data: rows as the model sees them, what is trained, and what is wrong."""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from ...core.choices import look_command
from ...core.data.look import DataLook, look_at_data
from ...core.data.text import count_lines, histogram_lines, row_lines
from ...core.errors import TunedeckError
from ...core.findings import blocking
from ...core.text import strip_controls
from ..background import begin
from ..words import finding_line, foreseen, safe, trouble
from .page import Page

if TYPE_CHECKING:
    from ...core.chat import InspectedRow
    from ...core.selection import Selection

_STYLES = {"trained": "$success underline", "context": "", "dropped": "$error strike"}
_NONE = re.compile(r"\s*0  ")
_TABLES = ("dataset", "validation_dataset")


class LookedAt(Message):
    """The data has been looked at; or could not be."""

    def __init__(self, look: DataLook | None, error: TunedeckError | None) -> None:
        super().__init__()
        self.look, self.error = look, error


class DataScreen(Page):
    """The label inspector.

    Args:
        config: the resolved config whose data is looked at.
        selection: what was chosen, for the command that shows the same.
    """

    HELP = (
        "The rows as the chat template renders them. Underlined text is trained, plain text is "
        "context, struck text lies beyond seq_length; without colors ⟦ ⟧ and ~~ ~~ tell them "
        "apart. left and right go through the rows, v looks at the validation data."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,n", "row(1)", "Next row", id="data.next"),
        Binding("left,p", "row(-1)", "Row before", id="data.before"),
        Binding("v", "table", "Validation", id="data.table", tooltip="The other data set"),
        Binding("escape,q", "app.pop_screen", "Back", id="data.close"),
    ]

    def __init__(self, config: Mapping[str, Any], selection: Selection) -> None:
        super().__init__()
        self._config, self._selection = config, selection
        self._look: DataLook | None = None
        self._row = 0
        self._table = 0

    def body(self) -> ComposeResult:
        """Counts, then the row."""
        with VerticalScroll(id="data"):
            yield Static("Looking at every row …", id="data-head", markup=False)
            yield Static(id="data-text", markup=False)

    def on_mount(self) -> None:
        """Look in a thread."""
        self.query_one("#data").focus()
        self._begin()

    def _begin(self) -> None:
        config, table = self._config, _TABLES[self._table]
        self.show_title("New launch", "Data", table.replace("_", " "))
        words = look_command(self._selection, validation=bool(self._table))
        self.show_command(shlex.join(words))

        def work(_stop: threading.Event) -> None:
            try:
                self.post_message(LookedAt(look_at_data(config, table), None))
            except (TunedeckError, OSError) as error:
                self.post_message(LookedAt(None, foreseen(error)))

        begin(self, work)

    @on(LookedAt)
    def _show(self, message: LookedAt) -> None:
        self._look, self._row = message.look, 0
        if message.look is None:
            words = f"✗ {trouble(message.error)}" if message.error else ""
            self.query_one("#data-head", Static).update(Content.assemble((words, "$error")))
            self.query_one("#data-text", Static).update("")
            return
        self.query_one("#data-head", Static).update(_head(message.look))
        self._draw()

    def action_table(self) -> None:
        """Look at the validation data, or at the training data again."""
        other = 1 - self._table
        if not (self._config.get(_TABLES[other]) or {}).get("path_or_dataset_id"):
            self.wizard.say(f"This config names no {_TABLES[other].replace('_', ' ')}.")
            return
        self._table = other
        self._begin()

    def action_row(self, by: int) -> None:
        """Show another row."""
        if self._look is not None and self._look.rows:
            self._row = (self._row + by) % len(self._look.rows)
            self._draw()

    def _draw(self) -> None:
        look = self._look
        if look is None:
            return
        if not look.report.rows:
            text = Content("")
        elif not look.rows:
            text = Content("The tokenizer is not on this machine: only the rows' form was checked.")
        else:
            row = look.rows[self._row]
            head = f"\nrow {row.place.line} ({self._row + 1} of {len(look.rows)})  "
            counts = ", ".join(f"{row.count(s)} {s}" for s in ("trained", "context", "dropped"))
            text = Content.assemble((f"{head}{counts}\n", "bold"), *_tokens(row))
        self.query_one("#data-text", Static).update(text)


def _tokens(row: InspectedRow) -> Iterator[str | tuple[str, str]]:
    if row.refused:
        yield (f"✗ {strip_controls(row.refused.message)}\n", "$error")
    if os.environ.get("NO_COLOR"):
        yield "\n".join(list(row_lines(row, color=False))[1:])
        return
    for token in row.tokens:
        yield (strip_controls(token.text), _STYLES[token.status])


def _head(look: DataLook) -> Content:
    if blocking(list(look.findings)):
        parts = [Content.assemble(("✗ This data blocks a launch:", "bold $error"))]
    else:
        parts = [Content.assemble(("✓ This data can be trained on.", "bold $success"))]
    parts += [finding_line(finding) for finding in look.findings]
    if not look.report.rows:
        return Content("\n").join(parts)
    parts += [Content(safe(line)) for line in count_lines(look) if not _NONE.match(line)]
    parts.append(Content.styled("tokens a row", "bold $primary"))
    parts += [Content.styled(safe(line), "$accent") for line in histogram_lines(look.report)]
    parts.append(
        Content.assemble(
            ("trained", _STYLES["trained"]),
            "  context  ",
            ("beyond seq_length", _STYLES["dropped"]),
        )
    )
    return Content("\n").join(parts)
