"""What is asked of the place where a run is: how it is, to stop it, for its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...core.cli.transfer import transfer_words
from ...core.runs.registry import Registry
from ...core.runs.watch import backend_of, look
from ..errand import Errand
from ..words import safe
from .ask import Confirm
from .run_messages import Fetched, News, Troubled

if TYPE_CHECKING:
    from pathlib import Path

    from ...core.runs.record import RunRecord
    from .run import RunScreen


def look_now(screen: RunScreen) -> None:
    """Ask the place how the run is; here a login may ask for a password."""
    record = screen.record
    if record.state.terminal:
        screen.wizard.say("There is nothing to ask: the run has ended.")
        return

    def told(seen: RunRecord) -> News:
        screen.post_message(Troubled(""))
        return News(seen)

    screen.begin_errand(
        f"Asking how {record.run_id} is",
        lambda: look(record, backend_of(record), Registry()),
        told,
    )


def cancel(screen: RunScreen) -> None:
    """Ask, then stop the run."""
    if screen.record.state.terminal:
        screen.wizard.say("There is nothing to cancel: the run has ended.")
    elif screen.wizard.may_change("Cancelling"):

        def sure(yes: bool | None) -> None:
            if not yes:
                return
            from ...core import launch

            record = screen.record  # as it is now, after the question
            screen.begin_errand(
                f"Cancelling {record.run_id}",
                lambda: launch.cancel(record, backend_of(record), Registry()),
                News,
            )

        question = f"Cancel {safe(screen.record.name)}? Its last published checkpoint is kept."
        screen.app.push_screen(Confirm(question, "Cancel the run"), sure)


def fetch(screen: RunScreen) -> None:
    """Bring the run's files home: its result, its configs, what it measured."""
    from ...core.runs.fetch import fetch as fetch_files

    record = screen.record

    async def bring() -> list[Path]:
        return await fetch_files(record, backend_of(record), None, told)

    def told(name: str, here: int, whole: int) -> None:
        errand.what = transfer_words("Fetching", name, here, whole)

    errand = Errand(screen, f"Fetching files of {record.run_id}", bring, Fetched)
    screen.start_errand(errand)
