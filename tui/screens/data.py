"""A look at the data: rows as the model sees them, what is trained, and what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from ...core.data_look import DataLook, look_at_data
from ...core.errors import TunedeckError
from ...core.text import strip_controls
from ..background import begin
from ..words import finding_line, trouble

_STYLES = {"trained": "$success underline", "context": "", "dropped": "$error strike"}
_BAR = 30


class LookedAt(Message):
    """The data has been looked at; or could not be."""

    def __init__(self, look: DataLook | None, error: TunedeckError | None) -> None:
        super().__init__()
        self.look, self.error = look, error


class DataScreen(ModalScreen[None]):
    """The label inspector.

    Args:
        config: the resolved config whose data is looked at.
    """

    HELP = (
        "The rows as the chat template renders them. Underlined text is trained, plain text is "
        "context, struck text lies beyond seq_length. left and right go through the rows."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Close", id="data.close"),
        Binding("right,n", "row(1)", "Next row", id="data.next"),
        Binding("left,p", "row(-1)", "Row before", id="data.before"),
    ]

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self._config = config
        self._look: DataLook | None = None
        self._row = 0

    def compose(self) -> ComposeResult:
        """Counts, then the row."""
        with Vertical(id="data"):
            yield Static("Looking at every row …", id="data-head", markup=False)
            with VerticalScroll():
                yield Static(id="data-text", markup=False)

    def on_mount(self) -> None:
        """Look in a thread."""
        self.query_one("#data").border_title = "The data as the model sees it"
        self.query_one("#data").border_subtitle = "← → rows · esc closes"
        config = self._config

        def work(_stop: threading.Event) -> None:
            try:
                self.post_message(LookedAt(look_at_data(config), None))
            except TunedeckError as error:
                self.post_message(LookedAt(None, error))

        begin(self, work)

    @on(LookedAt)
    def _show(self, message: LookedAt) -> None:
        self._look = message.look
        if message.look is None:
            words = trouble(message.error) if message.error else ""
            self.query_one("#data-head", Static).update(Content.assemble((words, "$error")))
            return
        self.query_one("#data-head", Static).update(_head(message.look))
        self._draw()

    def action_row(self, by: int) -> None:
        """Show another row."""
        if self._look is not None and self._look.rows:
            self._row = (self._row + by) % len(self._look.rows)
            self._draw()

    def _draw(self) -> None:
        look = self._look
        if look is None:
            return
        if not look.rows:
            text = Content("The tokenizer is not on this machine: only the rows' form was checked.")
        else:
            row = look.rows[self._row]
            counts = ", ".join(f"{row.count(s)} {s}" for s in ("trained", "context", "dropped"))
            parts: list[str | tuple[str, str]] = [
                (f"row {row.place.line} ({self._row + 1} of {len(look.rows)})  {counts}\n", "bold")
            ]
            if row.refused:
                parts.append((f"✗ {strip_controls(row.refused.message)}\n", "$error"))
            parts += [(strip_controls(t.text), _STYLES[t.status]) for t in row.tokens]
            text = Content.assemble(*parts)
        self.query_one("#data-text", Static).update(text)


def _head(look: DataLook) -> Content:
    report = look.report
    parts = [
        Content(
            f"{report.trainable_rows} of {report.rows} rows are trained on, "
            f"{report.supervised_tokens} of {report.tokens} tokens."
        ),
        Content.assemble(
            ("trained", _STYLES["trained"]),
            "  context  ",
            ("beyond seq_length", _STYLES["dropped"]),
        ),
    ]
    most = max((one.rows for one in report.histogram()), default=1)
    parts += [
        Content.assemble(
            (f"{one.start:>6}–{one.stop:<6} ", "$text-muted"),
            ("█" * max(round(one.rows / most * _BAR), 1), "$accent"),
            f" {one.rows}",
        )
        for one in report.histogram()
        if one.rows
    ]
    parts += [finding_line(finding) for finding in look.findings]
    return Content("\n").join(parts)
