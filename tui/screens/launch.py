"""The walk of a new launch: step, config, environment, review, and then the run."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import ContentSwitcher, Input

from ...core.backends.base import TellsUploads
from ...core.choices import command_of, steps_for
from ...core.cli.transfer import transfer_words
from ...core.drafts import STAGES, Draft, Stage
from ...core.runs.registry import Registry
from ..background import begin
from ..errand import Errand
from ..keeper import Keeper
from ..stages.config import ConfigStage
from ..stages.environment import EnvironmentStage
from ..stages.review import ReviewStage, Submit
from ..stages.stage import Chosen, StageView
from ..stages.step import StepStage
from ..widgets.stepper import Stepper
from .page import Page

if TYPE_CHECKING:
    from ...core.catalog import Catalog, Step
    from ...core.findings import Finding
    from ...core.replays.replay import Replay
    from ...core.runs.record import RunRecord
    from ...core.selection import Selection


class Catalogued(Message):
    """The catalog has been read."""

    def __init__(self, catalog: Catalog, offered: list[Step]) -> None:
        super().__init__()
        self.catalog, self.offered = catalog, offered


class Launched(Message):
    """The backend has taken the run."""

    def __init__(self, record: RunRecord) -> None:
        super().__init__()
        self.record = record


class NotSent(Message):
    """The submission was given up."""


class LaunchScreen(Page):
    """Holds what has been chosen, keeps it as a draft, and shows one stage at a time.

    Args:
        draft: where to begin or to go on.
        made_by: offer only the steps that take what this step makes.
        replay: the saved launch that is launched again, to tell what has changed since.
    """

    HELP = (
        "A new launch. The line above says where you are: esc goes back a stage, 1 to 4 "
        "go to any. Everything you choose is kept as a draft; leaving loses nothing."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", id="launch.back", tooltip="A stage back, or home"),
        *(
            Binding(
                f"{number},alt+{number}",
                f"go('{stage}')",
                f"To {stage}",
                show=False,
                id=f"launch.{stage}",
                tooltip=f"Straight to the stage: {stage}",
            )
            for number, stage in enumerate(STAGES, 1)
        ),
    ]

    def __init__(
        self, draft: Draft, *, made_by: str | None = None, replay: Replay | None = None
    ) -> None:
        super().__init__()
        self.draft = draft
        self.replay = replay
        self.catalog: Catalog | None = None
        self.offered: list[Step] = []
        self._made_by = made_by
        self._keeper = Keeper(self)
        self._sending = False
        self._settled = False

    @property
    def selection(self) -> Selection:
        """What has been chosen so far."""
        return self.draft.selection

    @property
    def ready(self) -> bool:
        """Whether the stage that is seen can take keys."""
        return self._settled and self._stage.ready

    def body(self) -> ComposeResult:
        """The stepper, and the stages of which one is seen."""
        yield Stepper(id="stepper", markup=False)
        with ContentSwitcher(initial=self.draft.stage):
            yield StepStage(id="step")
            yield ConfigStage(id="config")
            yield EnvironmentStage(id="environment")
            yield ReviewStage(id="review")

    def on_mount(self) -> None:
        """Read the catalog, then show the stage."""
        self.show_title("New launch")
        self._stage.take_focus()
        self._say_command()
        selection, made_by = self.selection, self._made_by

        def work(_stop: threading.Event) -> None:
            from ...core.catalog import load_catalog

            catalog = load_catalog(selection.catalog)
            self.post_message(Catalogued(catalog, steps_for(catalog, made_by)))

        begin(self, work)

    def on_unmount(self) -> None:
        """What was chosen is on disk before the wizard ends; a launched draft is forgotten."""
        self._keeper.close(forget=self.draft.draft_id if self._sending else None)

    @on(Catalogued)
    def _read(self, message: Catalogued) -> None:
        self.catalog, self.offered = message.catalog, message.offered
        self._settled = True
        self._show_stage()

    @on(Chosen)
    def _choose(self, message: Chosen) -> None:
        stage = message.go or self.draft.stage
        self._keep(replace(self.draft, selection=message.selection, stage=stage))
        self._say_command()
        if message.go:
            self._show_stage()
        else:
            self._stage.show()

    def keep_answers(self, answers: Mapping[str, Mapping[str, str]]) -> None:
        """Keep what was answered for an env file that is not written yet."""
        self._keep(replace(self.draft, answers=answers))

    def _keep(self, draft: Draft) -> None:
        self.draft = draft
        if not self.wizard.read_only:
            self._keeper.keep(draft)

    @property
    def _stage(self) -> StageView:
        return self.query_one(f"#{self.draft.stage}", StageView)

    def _show_stage(self) -> None:
        self.query_one(ContentSwitcher).current = self.draft.stage
        self.query_one(Stepper).show(self.draft.stage)
        self._stage.show()
        self._stage.take_focus()

    def show_profile_command(self, profile: str) -> None:
        """Show the launch with a profile that is marked and not yet chosen."""
        chosen = replace(self.selection, profile=profile)
        self.show_command(shlex.join(command_of(chosen, "--dry-run")))

    def _say_command(self) -> None:
        chosen = self.selection
        if not chosen.step:
            self.show_command("tunedeck steps list")
        else:
            self.show_command(shlex.join(command_of(chosen, "--dry-run")))

    def action_go(self, stage: Stage) -> None:
        """Go to a stage; those after the first need a step."""
        if stage != "step" and not self.selection.step:
            self.wizard.say("Choose a step first.")
            return
        self.post_message(Chosen(self.selection, stage))

    def action_back(self) -> None:
        """A stage back; from the first one home, the draft being kept.

        What the network is being asked is given up first, and a search is left first.
        """
        if self.give_up():
            return
        if isinstance(self.focused, Input):
            if self.focused.id != "dotlist":
                self.focused.value = ""
            self._stage.take_focus()
            return
        number = STAGES.index(self.draft.stage)
        if number == 0:
            self.app.pop_screen()
        else:
            self.post_message(Chosen(self.selection, STAGES[number - 1]))

    def go_to_field(self, finding: Finding) -> None:
        """Lead to the field that a finding is about: a key of the profile or of the config."""
        if finding.key is None:
            self.wizard.say("It is about no field: see what is said to do.")
        elif finding.profile is not None:
            self.post_message(Chosen(self.selection, "environment"))
            self.query_one(EnvironmentStage).go_to(finding.key)
        else:
            self.post_message(Chosen(self.selection, "config"))
            self.query_one(ConfigStage).go_to(finding.key)

    def on_screen_resume(self) -> None:
        """An env file may have been written on the screen that was above this one."""
        if self.catalog is not None and self.draft.stage == "environment":
            self._stage.show()

    @on(Submit)
    def _submit(self, message: Submit) -> None:
        if self._sending:
            return
        self._sending = True
        prepared, forced = message.prepared, message.forced

        plan, backend = prepared.plan, prepared.backend
        what = f"Submitting {plan.run_id} to {plan.profile}"

        async def send() -> RunRecord:
            from ...core.launch import launch

            return await launch(plan, prepared.submission, backend, Registry(), forced=forced)

        def told(name: str, here: int, whole: int) -> None:
            errand.what = what if here == whole else transfer_words("Uploading", name, here, whole)

        errand = Errand(self, what, send, Launched, NotSent())
        if isinstance(backend, TellsUploads):
            backend.tell_uploads(told)
        self.start_errand(errand)

    def on_failed(self) -> None:
        """What could not be sent may be sent again, once it is mended."""
        self._settled = True
        self._not_sent()

    @on(NotSent)
    def _not_sent(self) -> None:
        """The run may have arrived all the same: the next one has an id of its own."""
        if self._sending:
            self._sending = False
            self.query_one(ReviewStage).show()

    @on(Launched)
    def _follow(self, message: Launched) -> None:
        from .run import RunScreen

        self.app.switch_screen(RunScreen(message.record))
