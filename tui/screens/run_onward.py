"""What one can go on to from a run: resume it, change it, use what it made, keep it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.choices import selection_after, selection_of
from ...core.drafts import Draft, Stage
from ...core.errors import TunedeckError
from ...core.selection import resume_selection
from ...core.states import RunState
from ..words import trouble

if TYPE_CHECKING:
    from ...core.runs.record import RunRecord
    from ...core.selection import Selection
    from ..app import WizardApp


def resume(app: WizardApp, record: RunRecord) -> None:
    """Review a run that goes on from the last checkpoint of one that has ended."""
    if not record.state.terminal:
        app.say("It goes on as it is; only a run that has ended can be resumed.")
        return
    try:
        if _is_known(app, record):
            _walk(app, resume_selection(record, ()), "review")
    except TunedeckError as error:
        app.say(trouble(error), severity="warning")


def again(app: WizardApp, record: RunRecord) -> None:
    """Change what a run was made of, and launch it anew."""
    if _is_known(app, record):
        _walk(app, selection_of(record), "config")


def next_step(app: WizardApp, record: RunRecord) -> None:
    """Choose a step that takes what a run has made."""
    if record.state is not RunState.SUCCEEDED:
        app.say("Only what a run has finished can be handed on.")
        return
    _walk(app, selection_after(record), "step", made_by=record.step)


def save(app: WizardApp, record: RunRecord) -> None:
    """Save a run's ingredients under a name."""
    if app.may_change("Saving"):
        from ..saving import ask_and_save

        ask_and_save(app, record.plan, record.name)


def _is_known(app: WizardApp, record: RunRecord) -> bool:
    """Whether this machine knows what was chosen; if not, say so."""
    known = "cwd" in record.plan["selection"]
    if not known:
        app.say("It was launched from another machine, which knows what it was made of.")
    return known


def _walk(
    app: WizardApp, selection: Selection, stage: Stage, *, made_by: str | None = None
) -> None:
    from .launch import LaunchScreen

    app.push_screen(LaunchScreen(Draft.begin(selection, stage), made_by=made_by))
