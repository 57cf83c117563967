"""Making an env file: the kind of place, the few values that only the site knows, and the file."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ...core.env.find import is_found
from ...core.env.generate import Generated, generate, init_words, write, wrong_answer
from ...core.env.generate_config import GeneratorConfig, config_names, load_generator
from ...core.errors import UsageError
from ...core.findings import Finding
from ...core.keys import split_key
from ...core.text import counted
from ..background import begin
from ..code import code
from ..words import cell, finding_line, safe, trouble
from .ask import AskText, Choose, Confirm
from .page import Page

_ABOUT = {
    "local": "this machine",
    "slurm": "a Slurm cluster, behind SSH or here",
    "lepton": "DGX Cloud Lepton",
    "dgxcloud": "DGX Cloud Run:ai",
    "hf_jobs": "Hugging Face Jobs",
}


Answers = Mapping[str, Mapping[str, str]]

_MOST_SAID = 2
"""Findings that are shown; each may take several lines."""


def _in_the_way(made: Generated) -> list[Finding]:
    """What will be wrong once the file is written; what is only left open is counted."""
    still = {".".join(map(str, split_key(value.key))) for value in made.open_values}
    return [
        one
        for one in made.findings
        # What is said of another file is that both define a profile, which then neither does.
        if (one.severity == "error" or one.place.file not in (None, str(made.path)))
        and f"{one.profile}.{one.key}" not in still
    ]


def _wrong_name(text: str) -> str:
    if not text.strip() or is_found(Path(text.strip())):
        return ""
    return "No search finds a file of this name, as it does env.toml and env.NAME.toml."


class Made(Message):
    """The file as it would be; or why there is none."""

    def __init__(
        self,
        command: str,
        config: GeneratorConfig,
        generated: Generated | None,
        error: UsageError | None,
    ) -> None:
        super().__init__()
        self.command, self.config = command, config
        self.generated, self.error = generated, error


class Saved(Message):
    """The file has been written; a backup was made where there was one."""

    def __init__(self, path: Path, backup: Path | None) -> None:
        super().__init__()
        self.path, self.backup = path, backup


class EnvFileScreen(Page):
    """The generator of env files as a form. Nothing is written before w.

    Args:
        cwd: where the file goes.
        given: what was answered before, `SiteValue.key` → answer by kind of place.
        keep: is told all that is answered and not written yet, whenever that changes.
    """

    HELP = (
        "Makes an env file with a profile for every kind of step. enter answers the marked "
        "question; what is left open reads an environment variable. Below is the file as it would "
        "be, or what would change in the one that is there. w writes it."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "write", "Write", id="env-file.write", tooltip="Write the file"),
        Binding(
            "u",
            "update",
            "Update",
            id="env-file.update",
            tooltip="Update a file that is there; your comments and keys stay, a backup is kept",
        ),
        Binding("escape", "back", "Back", id="env-file.back"),
    ]

    def __init__(
        self,
        cwd: Path,
        given: Answers | None = None,
        keep: Callable[[Answers], None] = lambda _given: None,
    ) -> None:
        super().__init__()
        self._cwd, self._keep = cwd, keep
        self._given = {kind: dict(answers) for kind, answers in (given or {}).items() if answers}
        self.kind = next(iter(self._given), "slurm")
        self._output: str | None = None
        self._force = False
        self._config: GeneratorConfig | None = None
        self.generated: Generated | None = None

    @property
    def answers(self) -> dict[str, str]:
        """What was answered for this kind of place; another kind keeps its own."""
        return self._given.setdefault(self.kind, {})

    def body(self) -> ComposeResult:
        """Questions above, the file below."""
        yield OptionList(id="questions", markup=False)
        yield Static(id="env-file-head", markup=False)
        with VerticalScroll(id="env-file-page"):
            yield Static(id="env-file-text", markup=False)

    def on_mount(self) -> None:
        """Work the file out in a thread."""
        self.show_title("New env file")
        self.query_one("#questions").focus()
        self._make()

    @property
    def _overrides(self) -> list[str]:
        named = [f"output_path={self._output}"] if self._output else []
        return named + (["force=true"] if self._force else [])

    def _make(self) -> None:
        kind, overrides, answers, cwd = self.kind, self._overrides, dict(self.answers), self._cwd
        command = shlex.join(init_words(kind, overrides, answers))
        self.show_command(command)

        def work(_stop: threading.Event) -> None:
            config = load_generator(kind, overrides, cwd, answers)
            try:
                made = generate(kind, overrides, cwd, answers)
            except UsageError as error:
                self.post_message(Made(command, config, None, error))
            else:
                self.post_message(Made(command, config, made, None))

        begin(self, work)

    @on(Made)
    def _show(self, message: Made) -> None:
        if message.command != self.command_line:  # something else was asked for since
            return
        self._config, self.generated = message.config, message.generated
        self._list(message.config)
        head, text = (
            self.query_one("#env-file-head", Static),
            self.query_one("#env-file-text", Static),
        )
        if message.error is not None:
            there = message.error.place is not None and not self._force
            hint = "   u updates it and keeps what is yours" if there else ""
            head.update(Content.assemble((f"✗ {trouble(message.error)}", "$error"), hint))
            text.update("")
        elif message.generated is not None:
            made = message.generated
            still, wrong = len(made.open_values), _in_the_way(made)
            line = Content.assemble(
                ("! " if wrong else "✓ ", "$warning" if wrong else "$success"),
                f"{len(made.profiles)} profiles   ",
                (f"! {counted(still, 'value')} still open   " if still else "", "$warning"),
                ("w", "bold $accent"),
                f" writes {safe(made.path.name)}",
            )
            head.update(Content("\n").join([line, *map(finding_line, wrong[:_MOST_SAID])]))
            changes = made.existing is not None
            shown = (made.diff or "(no change)") if changes else made.text
            text.update(code(shown, "diff" if changes else "toml"))

    def _list(self, config: GeneratorConfig) -> None:
        width = self.size.width - 4
        rows = [("kind", "Kind of place", f"{self.kind}: {_ABOUT.get(self.kind, '')}", True)]
        for value in config.site:
            given = self.answers.get(value.key) or os.environ.get(value.env, "")
            rows.append(
                (value.key, value.question, given or f"such as {value.example}", bool(given))
            )
        rows.append(("file", "File", config.output_path, True))
        first = min(max(len(question) for _, question, _, _ in rows), width // 2)
        questions = self.query_one("#questions", OptionList)
        at = questions.highlighted or 0
        questions.set_options(
            Option(
                Content.assemble(
                    (f"{'✓' if done else '?'} ", "$success" if done else "$warning"),
                    cell(question, first) + " ",
                    (cell(shown, max(width - first - 4, 10)), "bold" if done else "$text-muted"),
                ),
                id=key,
            )
            for key, question, shown, done in rows
        )
        questions.highlighted = min(at, len(rows) - 1)
        questions.styles.height = min(len(rows), 8)

    @on(OptionList.OptionSelected)
    def _ask(self, event: OptionList.OptionSelected) -> None:
        key, config = event.option.id or "", self._config
        if config is None:
            return
        if key == "kind":
            kinds = [(name, _ABOUT.get(name, "")) for name in config_names()]
            self.app.push_screen(Choose("Kind of place", kinds, marked=self.kind), self._set_kind)
        elif key == "file":
            about = "Where it is written, from the folder of the launch."
            question = AskText("File", about, config.output_path, _wrong_name, keeps_wrong=True)
            self.app.push_screen(question, self._set_file)
        else:
            value = next(one for one in config.site if one.key == key)
            about = (
                f"{value.question}, such as {value.example}\n{key}; left open it reads {value.env}"
            )

            def answered(text: str | None) -> None:
                if text is None:
                    return
                self.answers.pop(key, None)
                if text.strip():
                    self.answers[key] = text.strip()
                self._keep({kind: dict(given) for kind, given in self._given.items() if given})
                questions = self.query_one("#questions", OptionList)
                questions.action_cursor_down()
                self._make()

            given = self.answers.get(key) or os.environ.get(value.env, "")
            question = AskText(value.question, about, given, self._check_of(key), keeps_wrong=True)
            self.app.push_screen(question, answered)

    def _check_of(self, key: str) -> Callable[[str], str]:
        kind, overrides, cwd = self.kind, self._overrides, self._cwd
        return lambda text: wrong_answer(kind, key, text.strip(), overrides, cwd)

    def _set_kind(self, kind: str | None) -> None:
        if kind is not None and kind != self.kind:
            self.kind, self._output, self._force = kind, None, False
            self._make()

    def _set_file(self, name: str | None) -> None:
        if name and name.strip():
            self._output = name.strip()
            self._make()

    def action_update(self) -> None:
        """Update the file that is there, or no longer."""
        self._force = not self._force
        self._make()

    def action_write(self) -> None:
        """Write the file."""
        made = self.generated
        if made is None:
            self.wizard.say("There is nothing to write yet: see what is said above.")
        elif self.wizard.may_change("Writing an env file"):

            def work(_stop: threading.Event) -> None:
                self.post_message(Saved(made.path, write(made)))

            begin(self, work)

    @on(Saved)
    def _saved(self, message: Saved) -> None:
        kept = f" The file as it was is in {message.backup.name}." if message.backup else ""
        self.wizard.say(f"Wrote {safe(message.path)}.{safe(kept)}")
        self._keep({})
        self.app.pop_screen()

    def action_back(self) -> None:
        """Leave; answers that are not written are asked about first."""
        given = sum(len(answers) for answers in self._given.values())
        if given:
            question = f"Leave {counted(given, 'answer')} unwritten?"
            self.app.push_screen(Confirm(question, "Leave"), self._leave_if)
        else:
            self.app.pop_screen()

    def _leave_if(self, sure: bool | None) -> None:
        if sure:
            self._keep({})
            self.app.pop_screen()
