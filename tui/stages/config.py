"""The second stage: which config, and what is changed in it."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static

from ...core.choices import Form, Row, as_text, form_of, with_override, with_value, without_value
from ...core.errors import TunedeckError, UsageError
from ...core.text import holds
from ..background import begin
from ..screens.ask import Choose
from ..widgets.lists import marked_id, refill
from ..words import safe, trouble
from .config_pick import ask_for
from .config_rows import about, options
from .stage import Chosen, StageView

if TYPE_CHECKING:
    from ...core.selection import Selection


class Formed(Message):
    """The form of a selection."""

    def __init__(self, selection: Selection, form: Form) -> None:
        super().__init__()
        self.selection, self.form = selection, form


class ConfigStage(StageView):
    """The config as a form: enter edits the marked field, and what is wrong stands below it."""

    HELP = (
        "Choose one of the step's configs (c), then change what you like: enter edits the marked "
        "field, backspace puts it back. Changed fields carry ✎, wrong ones ✗. The line at the "
        "bottom takes key=value as the command line does. l looks at the data, y shows the whole "
        "config as YAML. n goes on."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "next", "Next", id="config.next", tooltip="On to where it runs"),
        Binding("c", "config", "Config", id="config.config", tooltip="Choose another config"),
        Binding(
            "backspace,delete",
            "reset",
            "Reset",
            show=False,
            id="config.reset",
            tooltip="Undo it",
        ),
        Binding(
            "slash", "search", "Search", show=False, id="config.search", tooltip="Find a field"
        ),
        Binding("l", "look", "Data", id="config.look", tooltip="Rows, token by token"),
        Binding("y", "yaml", "YAML", id="config.yaml", tooltip="As YAML, with what is changed"),
        Binding(
            "m",
            "changed",
            "Changed",
            show=False,
            id="config.changed",
            tooltip="Only those",
        ),
        Binding(
            "colon", "line", "key=value", show=False, id="config.line", tooltip="Type key=value"
        ),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.form: Form | None = None
        self._formed_for: Selection | None = None
        self._wanted: str | None = None
        self._only_changed = False

    def compose(self) -> ComposeResult:
        """Config, search, fields, what there is to know of the marked one, dotlist line."""
        yield Static(id="config-name", markup=False)
        yield Input(placeholder="/ search fields", id="field-search")
        yield OptionList(id="fields", markup=False)
        yield Static(id="field-about", markup=False)
        yield Input(placeholder=": key=value", id="dotlist")

    @property
    def ready(self) -> bool:
        """Whether the fields are those of what is chosen now."""
        return self._formed_for == self.walk.selection

    def on_failed(self) -> None:
        """There is no form; another config can be chosen."""
        self._formed_for = self.walk.selection

    def show(self) -> None:
        """Compose the config in a thread, and list the fields as they then are."""
        selection, catalog = self.walk.selection, self.walk.catalog
        if not selection.step or catalog is None:
            return

        def work(_stop: threading.Event) -> None:
            self.post_message(Formed(selection, form_of(selection, catalog)))

        begin(self, work)

    def take_focus(self) -> None:
        """The fields are where one begins."""
        self.query_one("#fields").focus()

    def go_to(self, key: str) -> None:
        """Mark a field, once the fields are there."""
        self._wanted = key
        self.query_one("#field-search", Input).value = ""
        self._only_changed = False
        self._list()

    @on(Formed)
    def _formed(self, message: Formed) -> None:
        if message.selection == self.walk.selection:
            if self.form is None and self._wanted is None:
                wrong = (row.info.key for row in message.form.rows if row.finding)
                self._wanted = next(wrong, None)
            self.form, self._formed_for = message.form, message.selection
            self._list()

    def _list(self) -> None:
        form = self.form
        if form is None:
            return
        typed = self.query_one("#field-search", Input).value
        rows = [
            row
            for row in form.rows
            if holds(f"{row.info.key} {row.info.description}", typed)
            and (row.changed or row.finding or not self._only_changed)
        ]
        fields = self.query_one("#fields", OptionList)
        refill(fields, options(rows, self.app.size.width - 6), self._wanted or marked_id(fields))
        self._wanted = None
        self._explain()
        self._show_name(form)

    def _show_name(self, form: Form) -> None:
        chosen = self.walk.selection
        found = [*form.findings, *(row.finding for row in form.rows if row.finding)]
        wrong = sum(finding.severity == "error" for finding in found)
        changed = len(chosen.overrides)
        name = chosen.config or "the step's default"
        parts: list[str | tuple[str, str]] = [("config ", "$text-muted"), (safe(name), "bold")]
        parts.append((f"   {changed} changed", "$warning" if changed else "$text-muted"))
        if wrong:
            parts.append((f"   ✗ {wrong} wrong", "bold $error"))
        if form.findings:
            parts.append((f"   {safe(form.findings[0].message)}", "$text-muted"))
        self.query_one("#config-name", Static).update(Content.assemble(*parts))

    @property
    def _row(self) -> Row | None:
        key = marked_id(self.query_one("#fields", OptionList))
        return self.form.row(key) if self.form and key else None

    @on(OptionList.OptionHighlighted)
    def _explain(self) -> None:
        row = self._row
        words = about(row) if row else Content("")
        self.query_one("#field-about", Static).update(words)

    @on(Input.Changed, "#field-search")
    def _typed(self) -> None:
        self._list()

    @on(Input.Submitted, "#field-search")
    def _to_list(self) -> None:
        self.take_focus()

    @on(Input.Submitted, "#dotlist")
    def _typed_line(self, event: Input.Submitted) -> None:
        try:
            changed = self.walk.selection
            for text in shlex.split(event.value.removeprefix(":")):
                changed = with_override(changed, text)
        except UsageError as error:
            self.wizard.say(trouble(error), severity="error")
            return
        except ValueError as error:  # a quote that is not closed
            self.wizard.say(f"{error}: quotes are those of a shell.", severity="error")
            return
        event.input.value = ""
        self.take_focus()
        self.post_message(Chosen(changed))

    @on(OptionList.OptionSelected)
    def _edit(self) -> None:
        row = self._row
        if row is None:
            return
        ask_for(self.app, row, self.walk, self._check_of(row), lambda text: self._set(row, text))

    def _check_of(self, row: Row) -> Callable[[str], str]:
        catalog, selection = self.walk.catalog, self.walk.selection

        def wrong(text: str) -> str:
            if catalog is None or text == as_text(row.value):
                return ""
            try:
                form = form_of(with_value(selection, row.info, text), catalog)
            except TunedeckError as error:
                return trouble(error)
            now = form.row(row.info.key)
            finding = now.finding if now else None
            return finding.message if finding and finding.severity == "error" else ""

        return wrong

    def _set(self, row: Row, text: str | None) -> None:
        if text is None or text == as_text(row.value):
            return
        try:
            self.post_message(Chosen(with_value(self.walk.selection, row.info, text)))
        except UsageError as error:
            self.wizard.say(trouble(error), severity="error")

    def action_reset(self) -> None:
        """Put the marked field back to what the config says."""
        if (row := self._row) is not None and row.changed:
            self.post_message(Chosen(without_value(self.walk.selection, row.info.key)))
        else:
            self.wizard.say("Nothing to put back: this field is as the config has it.")

    def action_config(self) -> None:
        """Choose another of the step's configs, or a file."""
        catalog = self.walk.catalog
        if catalog is None:
            return
        step = catalog.find(self.walk.selection.step)
        choices = [(name, step.config_about(name)) for name in step.configs]

        def chosen(name: str | None) -> None:
            if name is not None:
                self.post_message(Chosen(replace(self.walk.selection, config=name)))

        marked = self.walk.selection.config or step.default_config
        title = "Config: one of the step's, or the path of a YAML file"
        self.app.push_screen(Choose(title, choices, marked=marked, free=True), chosen)

    def action_changed(self) -> None:
        """Show what is changed or wrong, or everything again."""
        self._only_changed = not self._only_changed
        self._list()

    def action_search(self) -> None:
        """Type to find a field."""
        self.query_one("#field-search").focus()

    def action_line(self) -> None:
        """Type key=value."""
        self.query_one("#dotlist").focus()

    def action_look(self) -> None:
        """Look at the data that the config names."""
        if self.form is None or not self.form.origins or not self.form.values.get("dataset"):
            self.wizard.say("There is no data to look at: mend what is marked ✗ first.")
            return
        from ..screens.data import DataScreen

        self.app.push_screen(DataScreen(self.form.values, self.walk.selection))

    def action_yaml(self) -> None:
        """Show the whole config as YAML, with the lines that are changed."""
        catalog, form = self.walk.catalog, self.form
        if catalog is None or form is None or not form.values:
            self.wizard.say("There is no config to show yet.")
            return
        from ..screens.yaml import YamlScreen

        self.app.push_screen(YamlScreen(form, self.walk.selection, catalog))

    def action_next(self) -> None:
        """On to where it runs."""
        self.post_message(Chosen(self.walk.selection, "environment"))
