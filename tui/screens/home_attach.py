"""Following a job that another machine launched."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from ...core.runs.record import RunRecord
    from .page import Page


class Attached(Message):
    """A job that another machine launched is in the registry now."""

    def __init__(self, record: RunRecord) -> None:
        super().__init__()
        self.record = record


def ask_and_attach(page: Page) -> None:
    """Ask for a job, and look for it; the page is told by `Attached` once it is found."""

    def wrong(text: str) -> str:
        return "" if len(text.split()) == 2 else "Two words: a profile and the id of a job."

    def named(text: str | None) -> None:
        if text is None:
            return
        profile, job = text.split()

        async def find() -> RunRecord:
            from ...core.cli.queue import backend_of_profile
            from ...core.runs.adopt import adopt
            from ...core.runs.registry import Registry

            backend, values = backend_of_profile(profile, None)
            return await adopt(backend, profile, values, job, Registry())

        page.show_command(shlex.join(["tunedeck", "runs", "attach", profile, job]))
        page.begin_errand(f"Looking for job {job} of {profile}", find, Attached)

    from .ask import AskText

    about = "The profile that it was submitted with and the id of its job, such as: lab 12345"
    page.app.push_screen(AskText("Attach to a job", about, "", wrong), named)
