"""The last stage before the run: everything that will happen, and what stands in its way."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ...core.errors import TunedeckError
from ...core.findings import blocking
from ...core.prepare import Prepared, prepare
from ...core.text import strip_controls
from ..background import begin
from ..words import finding_line, safe, trouble
from .stage import StageView

if TYPE_CHECKING:
    from ...core.resolve import Selection

_PAGES = ("summary", "config", "what is sent")


class Ready(Message):
    """A selection has been resolved, rendered and checked; or could not be."""

    def __init__(
        self, selection: Selection, prepared: Prepared | None, error: TunedeckError | None
    ) -> None:
        super().__init__()
        self.selection, self.prepared, self.error = selection, prepared, error


class Asked(Message):
    """The backend has been asked too."""

    def __init__(self, selection: Selection, prepared: Prepared) -> None:
        super().__init__()
        self.selection, self.prepared = selection, prepared


class Submit(Message):
    """Send what was shown."""

    def __init__(self, prepared: Prepared, *, forced: bool) -> None:
        super().__init__()
        self.prepared, self.forced = prepared, forced


class ReviewStage(StageView):
    """Shows the very object that is sent."""

    HELP = (
        "What will happen. Findings stand first; enter on one leads to its field. tab goes through "
        "the findings and the pages: summary, resolved config, the exact script or command. "
        "s submits what you see."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "submit", "Submit", id="review.submit", tooltip="Send what is shown"),
        Binding("p", "page", "Page", id="review.page", tooltip="Summary, config, what is sent"),
        Binding("w", "save", "Save", id="review.save", tooltip="Save it as a replay"),
        Binding("c", "copy", "Copy", id="review.copy", tooltip="Copy what is sent"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.prepared: Prepared | None = None
        self._page = 0
        self._asking = False
        self._warned = False
        self._stop: threading.Event | None = None

    def compose(self) -> ComposeResult:
        """Findings above, a page below."""
        yield Static(id="review-head", markup=False)
        yield OptionList(id="findings", markup=False)
        with VerticalScroll(id="review-page"):
            yield Static(id="review-text", markup=False)

    def take_focus(self) -> None:
        """The page is where one reads."""
        self.query_one("#review-page").focus()

    def show(self) -> None:
        """Prepare the selection without network, then with it where the backend is elsewhere."""
        selection = self.walk.selection
        self.prepared, self._asking, self._warned = None, True, False
        if self._stop is not None:
            self._stop.set()
        self.query_one("#review-head", Static).update("Resolving and checking …")

        def work(stop: threading.Event) -> None:
            try:
                prepared = asyncio.run(prepare(selection, online=False))
                remote = prepared.backend.capabilities.remote
                if stop.is_set():
                    return
                self.post_message(Ready(selection, prepared, None))
                if remote:
                    prepared = asyncio.run(prepare(selection, online=True))
            except TunedeckError as error:
                if not stop.is_set():
                    self.post_message(Ready(selection, None, error))
                return
            if not stop.is_set():
                self.post_message(Asked(selection, prepared))

        self._stop = begin(self, work)

    @on(Ready)
    def _ready(self, message: Ready) -> None:
        if message.selection != self.walk.selection:
            return
        if message.error is not None:
            self._asking = False
            self._show_error(message.error)
        elif message.prepared is not None:
            self._show_prepared(message.prepared)

    @on(Asked)
    def _asked(self, message: Asked) -> None:
        if message.selection == self.walk.selection:
            self._asking = False
            self._show_prepared(message.prepared)

    def _show_error(self, error: TunedeckError) -> None:
        findings = getattr(error, "findings", ())
        head = Content.assemble(("✗ This cannot be launched as it is.", "bold $error"))
        self.query_one("#review-head", Static).update(head)
        self._list([(finding_line(one), one.key or "") for one in findings])
        self.query_one("#review-text", Static).update(
            "" if findings else Content.assemble((trouble(error), "$error"))
        )

    def _show_prepared(self, prepared: Prepared) -> None:
        self.prepared = prepared
        errors = len(blocking(prepared.findings))
        warnings = sum(finding.severity == "warning" for finding in prepared.findings)
        if errors:
            head = Content.assemble((f"✗ {errors} error(s) stand in the way", "bold $error"))
        else:
            head = Content.assemble(("✓ Ready. ", "bold $success"), ("s", "bold"), " submits it")
        if warnings:
            head += Content.assemble((f"   ! {warnings} warning(s)", "$warning"))
        if self._asking and prepared.backend.capabilities.remote:
            head += Content.assemble((f"   asking {safe(prepared.plan.profile)} …", "$accent"))
        self.query_one("#review-head", Static).update(head)
        self._list([(finding_line(one), one.key or "") for one in prepared.findings])
        self._draw_page()

    def _list(self, findings: list[tuple[Content, str]]) -> None:
        listed = self.query_one("#findings", OptionList)
        listed.set_options(
            Option(words, id=f"{number}:{key}") for number, (words, key) in enumerate(findings)
        )
        listed.display = bool(findings)

    @on(OptionList.OptionSelected, "#findings")
    def _to_field(self, event: OptionList.OptionSelected) -> None:
        key = (event.option.id or "").partition(":")[2]
        if key:
            self.walk.go_to_field(key)

    def _draw_page(self) -> None:
        if self.prepared is None:
            return
        pages = (_summary, _config, _sent)
        page = self.query_one("#review-page")
        page.border_title = f"{_PAGES[self._page]} ({self._page + 1} of {len(_PAGES)}, p: next)"
        parts = list(pages[self._page](self.prepared))
        self.query_one("#review-text", Static).update(Group(*parts))

    def action_page(self) -> None:
        """Show the next page."""
        self._page = (self._page + 1) % len(_PAGES)
        self._draw_page()
        self.query_one("#review-page").scroll_home(animate=False)

    def action_copy(self) -> None:
        """Copy the exact script, payload or command."""
        if self.prepared is None:
            return
        submission = self.prepared.submission
        payload = json.dumps(submission.payload, indent=2) if submission.payload else None
        self.app.copy_to_clipboard(submission.script or payload or submission.command)
        self.walk.wizard.say("Copied what is sent, without the values of secrets.")

    def action_save(self) -> None:
        """Save the launch as a replay."""
        if self.prepared is None or not self.walk.wizard.may_change("Saving"):
            return
        from ..saving import ask_and_save

        ask_and_save(self.walk.wizard, self.prepared.plan.to_json(), self.prepared.plan.name)

    def action_submit(self) -> None:
        """Send what is shown, unless something stands in the way."""
        if self.prepared is None:
            self.walk.wizard.say("There is nothing to submit yet: see what is said above.")
            return
        if not self.walk.wizard.may_change("Submitting"):
            return
        if blocking(self.prepared.findings):
            self._ask_force(self.prepared)
        elif self._asking and self.prepared.backend.capabilities.remote and not self._warned:
            self._warned = True
            name = safe(self.prepared.plan.profile)
            self.walk.wizard.say(f"{name} has not answered yet. s again submits without.")
        else:
            self.post_message(Submit(self.prepared, forced=False))

    def _ask_force(self, prepared: Prepared) -> None:
        from ..screens.ask import Confirm

        def answered(sure: bool | None) -> None:
            if sure:
                self.post_message(Submit(prepared, forced=True))

        count = len(blocking(prepared.findings))
        question = f"{count} error(s) stand in the way. enter on one leads to its field. Submit?"
        self.app.push_screen(Confirm(question, "Submit all the same"), answered)


def _summary(prepared: Prepared) -> Iterator[RenderableType]:
    plan = prepared.plan
    model = (plan.config.get("model") or {}).get("pretrained_model_name_or_path")
    data = (plan.config.get("dataset") or {}).get("path_or_dataset_id")
    rows = {
        "run": f"{plan.run_id} ({plan.name})",
        "step": plan.step,
        "config": plan.config_name,
        "changed": " ".join(plan.overrides),
        "model": model,
        "data": data,
        "profile": f"{plan.profile} ({plan.executor})",
        "shape": f"{plan.launch.nodes} node(s) × {plan.launch.nproc_per_node} process(es)",
        "secrets": ", ".join(secret.name for secret in plan.secrets),
        "folder": plan.run_dir,
        "digest": plan.digest[:26] + "…",
    }
    if prepared.price:
        rows |= prepared.price
    text = Text()
    for label, value in rows.items():
        if value not in (None, ""):
            text.append(f"{label:<9}", "dim").append(f"{safe(value)}\n")
    for note in plan.notes:
        text.append(f"! {safe(note)}\n", "yellow")
    yield text


def _config(prepared: Prepared) -> Iterator[RenderableType]:
    import yaml

    text = yaml.safe_dump(dict(prepared.plan.config), sort_keys=False, allow_unicode=True)
    yield _code(text, "yaml")


def _sent(prepared: Prepared) -> Iterator[RenderableType]:
    submission = prepared.submission
    shown = submission.to_json()
    if submission.script:
        yield _code(submission.script, "bash")
    if submission.payload is not None:
        yield _code(json.dumps(submission.payload, indent=2), "json")
    yield Text("Command", style="bold")
    yield _code(submission.command, "bash")
    if shown["env"]:
        yield Text("\nEnvironment", style="bold")
        yield Text("\n".join(f"{name}={safe(value)}" for name, value in shown["env"].items()))
    for file in submission.files:
        yield Text(f"\n{safe(file.path)}  (mode {file.mode:o})", style="bold")
        yield _code(file.content, "yaml" if file.path.endswith((".yaml", ".yml")) else "text")


def _code(text: str, language: str) -> Syntax:
    return Syntax(
        strip_controls(text),
        language,
        theme="ansi_dark",
        background_color="default",
        word_wrap=True,
    )
