"""Questions that a login asks (a password, a second factor, trust in a host key), as a dialog."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..core.errors import AuthenticationError
from .errand import asked_for

if TYPE_CHECKING:
    from textual.app import App

_LOOK_S = 0.2


class WizardPrompter:
    """Asks over whatever screen is there; called from threads, which wait for the answer.

    What looks at runs by itself in the background never asks: a question comes only where someone
    has just asked for something.

    Args:
        app: shows the dialog.
    """

    def __init__(self, app: App[None]) -> None:
        self._app = app
        self._withdrawn = threading.Event()

    @property
    def present(self) -> bool:
        """Whether the person waits for what is going on."""
        return asked_for.get()

    def secret(self, question: str) -> str:
        """An answer that is not shown as it is typed."""
        return self._ask(question, hidden=True)

    def text(self, question: str) -> str:
        """An answer that may be seen."""
        return self._ask(question, hidden=False)

    def withdraw(self) -> None:
        """Take back what is being asked."""
        self._withdrawn.set()

    def _ask(self, question: str, *, hidden: bool) -> str:
        from .screens.ask import AskLogin

        answered = threading.Event()
        answers: list[str | None] = []

        def take(answer: str | None) -> None:
            answers.append(answer)
            answered.set()

        self._withdrawn.clear()
        screen = AskLogin(question, hidden=hidden)
        if self._app.is_running:
            self._app.call_from_thread(self._app.push_screen, screen, take)
        # A wizard that ends meanwhile answers nothing, and must not be kept by this thread.
        while self._app.is_running and not answered.wait(_LOOK_S):
            if self._withdrawn.is_set():
                self._app.call_from_thread(screen.leave)
                break
        answer = answers[0] if answers else None
        if answer is None:
            raise AuthenticationError("The login's question was left unanswered.")
        return answer
