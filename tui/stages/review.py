"""The last stage before the run: everything that will happen, and what stands in its way."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ...core.errors import TunedeckError
from ...core.findings import Finding, blocking
from ...core.prepare import Prepared, check_online, prepare
from ...core.text import counted
from ..background import begin
from ..errand import Errand
from ..words import finding_line, foreseen, safe, trouble
from .review_pages import Compared, compare, pages, render
from .review_sent import copied
from .stage import StageView

if TYPE_CHECKING:
    from ...core.selection import Selection


class Ready(Message):
    """A selection has been resolved, rendered and checked; or could not be."""

    def __init__(
        self,
        selection: Selection,
        prepared: Prepared | None,
        compared: Compared,
        error: TunedeckError | None = None,
    ) -> None:
        super().__init__()
        self.selection, self.prepared = selection, prepared
        self.compared, self.error = compared, error


class Asked(Message):
    """The backend has been asked too; with `send`, to submit if nothing stands in the way."""

    def __init__(self, prepared: Prepared, *, send: bool) -> None:
        super().__init__()
        self.prepared, self.send = prepared, send


class NotAsked(Message):
    """Asking the backend was given up."""


class Submit(Message):
    """Send what was shown."""

    def __init__(self, prepared: Prepared, *, forced: bool) -> None:
        super().__init__()
        self.prepared, self.forced = prepared, forced


class ReviewStage(StageView):
    """Shows the very object that is sent."""

    HELP = (
        "What will happen. Findings stand first: enter on one leads to its field, f to that of the "
        "first that is in the way. p goes through the pages: summary, what is other than last "
        "time, resolved config, the exact script or command. o asks the place it runs at what it "
        "says of it, s submits what you see; where it runs elsewhere and was not asked, it is "
        "asked first."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "submit", "Submit", id="review.submit", tooltip="Send what is shown"),
        Binding("p", "page", "Page", id="review.page", tooltip="Summary, changes, config, script"),
        Binding("f", "fix", "Fix", id="review.fix", tooltip="To the field that is in the way"),
        Binding("o", "ask", "Ask", id="review.ask", tooltip="Ask the place that it runs at"),
        Binding("w", "save", "Save", id="review.save", tooltip="Save it as a replay"),
        Binding("c", "copy", "Copy", show=False, id="review.copy", tooltip="Copy what is sent"),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.prepared: Prepared | None = None
        self.asked = False
        self._compared = Compared()
        self._page = 0
        self._findings: list[Finding] = []
        self._errand: Errand | None = None
        self._gave_up = False
        self._checked: Selection | None = None
        self._drawn: Selection | None = None

    @property
    def ready(self) -> bool:
        """Whether what is chosen now has been resolved and checked."""
        return self._checked == self.walk.selection

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
        """Prepare the selection, without network."""
        selection, replay = self.walk.selection, self.walk.replay
        self.prepared, self.asked, self._gave_up = None, False, False
        self._checked = None
        self.query_one("#review-head", Static).update("Resolving and checking …")
        if selection != self._drawn:
            # What was shown of another selection is not what will be sent.
            self._clear()

        def work(_stop: threading.Event) -> None:
            try:
                prepared = asyncio.run(prepare(selection, online=False))
                compared = compare(prepared, replay)
            except (TunedeckError, OSError) as error:
                self.post_message(Ready(selection, None, Compared(), foreseen(error)))
            else:
                self.post_message(Ready(selection, prepared, compared))

        begin(self, work)

    @on(Ready)
    def _ready(self, message: Ready) -> None:
        if message.selection != self.walk.selection:
            return
        self._compared = message.compared
        self._checked = self._drawn = message.selection
        if message.error is not None:
            self._show_error(message.error)
        elif message.prepared is not None:
            self.prepared = message.prepared
            self.asked = not message.prepared.backend.capabilities.remote
            self._show_prepared(message.prepared)

    def _show_error(self, error: TunedeckError) -> None:
        findings = getattr(error, "findings", ())
        head = Content.assemble(("✗ This cannot be launched as it is.", "bold $error"))
        self.query_one("#review-head", Static).update(head)
        self._clear()
        self._list(list(findings))
        if not findings:
            text = Content.assemble((trouble(error), "$error"))
            self.query_one("#review-text", Static).update(text)

    def _clear(self) -> None:
        self._list([])
        self.query_one("#review-page").border_title = ""
        self.query_one("#review-text", Static).update("")

    def _show_prepared(self, prepared: Prepared) -> None:
        errors = len(blocking(prepared.findings))
        warnings = sum(finding.severity == "warning" for finding in prepared.findings)
        profile = safe(prepared.plan.profile)
        if errors:
            with_field = any(finding.key for finding in blocking(prepared.findings))
            what = "f goes to the first" if with_field else "mend it, then o asks again"
            count = f"{errors} error" if errors == 1 else f"{errors} errors"
            head = Content.assemble((f"✗ {count} in the way: ", "bold $error"), what)
        else:
            head = Content.assemble(("✓ Ready. ", "bold $success"), ("s", "bold"), " submits it")
        if warnings:
            head += Content.assemble((f"   ! {counted(warnings, 'warning')}", "$warning"))
        if not self.asked:
            state = "was not asked" if self._gave_up else "is not asked yet"
            head += Content.assemble((f"   {profile} {state}: ", "$text-muted"), ("o", "bold"))
        elif prepared.backend.capabilities.remote and not errors:
            head += Content.assemble((f"   ✓ {profile} was asked", "$success"))
        self.query_one("#review-head", Static).update(head)
        self._list(prepared.findings)
        self._draw_page()

    def _list(self, findings: list[Finding]) -> None:
        # What is only said stands on the summary.
        self._findings = [one for one in findings if one.severity != "info"]
        listed = self.query_one("#findings", OptionList)
        listed.set_options(Option(finding_line(one)) for one in self._findings)
        listed.display = bool(self._findings)

    @on(OptionList.OptionSelected, "#findings")
    def _to_field(self, event: OptionList.OptionSelected) -> None:
        self.walk.go_to_field(self._findings[event.option_index])

    def action_fix(self) -> None:
        """To the field of the first finding that is in the way, or of the first there is."""
        wanted = [*blocking(self._findings), *self._findings]
        with_field = [one for one in wanted if one.key]
        if with_field:
            self.walk.go_to_field(with_field[0])
        elif self._findings:
            self.wizard.say("None of this is about a field: see what is said to do.")
        else:
            self.wizard.say("Nothing is in the way.")

    def _draw_page(self) -> None:
        if self.prepared is None:
            return
        titles = list(pages())
        title = titles[self._page]
        page = self.query_one("#review-page")
        page.border_title = f"{title} ({self._page + 1} of {len(titles)}, p: next)"
        self.query_one("#review-text", Static).update(render(title, self.prepared, self._compared))

    def action_page(self) -> None:
        """Show the next page."""
        self._page = (self._page + 1) % len(pages())
        self._draw_page()
        self.query_one("#review-page").scroll_home(animate=False)

    def action_copy(self) -> None:
        """Copy the exact script, payload or command."""
        if self.prepared is None:
            self.wizard.say("There is nothing to copy yet: see what is said above.")
            return
        self.app.copy_to_clipboard(copied(self.prepared.submission))
        self.wizard.say("Copied what is sent, without the values of secrets.")

    def action_save(self) -> None:
        """Save the launch as a replay."""
        if self.prepared is None:
            self.wizard.say("There is nothing to save yet: see what is said above.")
        elif self.wizard.may_change("Saving"):
            from ..saving import ask_and_save

            plan = self.prepared.plan
            ask_and_save(self.wizard, plan.to_json(), plan.name)

    def action_ask(self) -> None:
        """Ask the backend what it says of the plan: its preflight and its price."""
        if self.prepared is None:
            self.wizard.say("There is nothing to ask about yet: see what is said above.")
        elif not self.prepared.backend.capabilities.remote:
            self.wizard.say("It runs on this machine, which has been asked already.")
        else:
            self._ask(self.prepared, send=False)

    def _ask(self, prepared: Prepared, *, send: bool) -> None:
        if self._errand is not None and not self._errand.done:
            self.wizard.say(f"{safe(prepared.plan.profile)} is being asked; esc gives it up.")
            return
        self.walk.show_command(self.walk.command_line.replace("--dry-run", "--dry-run --online"))
        self._errand = self.walk.begin_errand(
            f"Asking {prepared.plan.profile}",
            lambda: check_online(prepared),
            lambda checked: Asked(checked, send=send),
            NotAsked(),
            owner=self,
        )

    @on(Asked)
    def _asked(self, message: Asked) -> None:
        if self.prepared is None or message.prepared.plan is not self.prepared.plan:
            return
        self.prepared, self.asked = message.prepared, True
        self._show_prepared(message.prepared)
        if not message.send:
            return
        if blocking(message.prepared.findings):
            self.wizard.say("Not submitted: see what stands in the way.", severity="warning")
        else:
            self.post_message(Submit(message.prepared, forced=False))

    @on(NotAsked)
    def _not_asked(self) -> None:
        self._gave_up = True
        if self.prepared is not None:
            self._show_prepared(self.prepared)

    def action_submit(self) -> None:
        """Send what is shown, unless something stands in the way."""
        if self.prepared is None:
            self.wizard.say("There is nothing to submit yet: see what is said above.")
        elif not self.wizard.may_change("Submitting"):
            return
        elif blocking(self.prepared.findings):
            self._ask_force(self.prepared)
        elif self.asked or self._gave_up:
            self.post_message(Submit(self.prepared, forced=False))
        else:
            self._ask(self.prepared, send=True)

    def _ask_force(self, prepared: Prepared) -> None:
        from ..screens.ask import Confirm

        def answered(sure: bool | None) -> None:
            if sure:
                self.post_message(Submit(prepared, forced=True))

        errors = blocking(prepared.findings)
        first = errors[0].message
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        question = f"In the way: {first}{more}\nSubmit it all the same?"
        self.app.push_screen(Confirm(question, "Submit all the same"), answered)
