"""Putting a run on hold where its service can, and having the same job go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

from ...core.backends.suspend import Suspends
from ...core.runs.registry import Registry
from ...core.runs.suspension import go_on, suspend
from ...core.runs.watch import backend_of
from ..words import safe
from .ask import Confirm
from .run_messages import News

if TYPE_CHECKING:
    from ...core.runs.record import RunRecord
    from .page import Page


class WentOn(Message):
    """A run that was on hold goes on."""

    def __init__(self, record: RunRecord) -> None:
        super().__init__()
        self.record = record


def hold(screen: Page, record: RunRecord) -> None:
    """Ask, then put the run on hold."""
    wizard = screen.wizard
    if record.state.terminal:
        wizard.say("There is nothing to put on hold: the run has ended.")
    elif not isinstance(backend_of(record), Suspends):
        wizard.say(f"Runs of {record.backend} cannot be put on hold; x cancels, r resumes later.")
    elif wizard.may_change("Putting a run on hold"):

        def sure(yes: bool | None) -> None:
            if yes:
                screen.begin_errand(
                    f"Putting {record.run_id} on hold",
                    lambda: suspend(record, backend_of(record), Registry()),
                    News,
                )

        question = f"Put {safe(record.name)} on hold? It saves, and goes on with r as the same job."
        screen.app.push_screen(Confirm(question, "Put it on hold"), sure)


def resume_in_place(screen: Page, record: RunRecord) -> None:
    """Have a run that is on hold go on."""
    if screen.wizard.may_change("Resuming"):
        screen.begin_errand(
            f"{record.run_id} is to go on",
            lambda: go_on(record, backend_of(record), Registry()),
            WentOn,
        )
