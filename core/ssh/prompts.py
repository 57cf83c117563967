"""Asking a person for what only a person has: a password, a second factor, trust in a host key."""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import Callable
from typing import Protocol


class Prompter(Protocol):
    """Someone to ask. The wizard puts its own in place of the terminal's."""

    @property
    def present(self) -> bool:
        """Whether there is anyone to ask."""
        ...

    def secret(self, question: str) -> str:
        """An answer that is not shown as it is typed."""
        ...

    def text(self, question: str) -> str:
        """An answer that may be seen."""
        ...

    def withdraw(self) -> None:
        """Nobody waits any more for the answer to what is being asked."""
        ...


class TerminalPrompter:
    """Asks on the terminal, past any redirection of the standard streams."""

    @property
    def present(self) -> bool:
        """Whether a terminal is there to read from and to be seen on."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def secret(self, question: str) -> str:
        """Ask without echo."""
        return getpass.getpass(question)

    def text(self, question: str) -> str:
        """Ask on stderr: stdout belongs to results."""
        sys.stderr.write(question)
        sys.stderr.flush()
        return sys.stdin.readline().strip()

    def withdraw(self) -> None:
        """Say so: what is read from a terminal cannot be taken back."""
        sys.stderr.write("\n(The connection has ended: press enter.)\n")


_prompter: Prompter = TerminalPrompter()


def prompter() -> Prompter:
    """Whom to ask now."""
    return _prompter


async def answer_to(ask: Callable[[str], str], question: str) -> str:
    """Ask in a thread and wait for the answer; a question that nobody waits for is withdrawn."""
    try:
        return await asyncio.to_thread(ask, question)
    except asyncio.CancelledError:
        prompter().withdraw()
        raise


def ask_through(other: Prompter) -> None:
    """Ask through something else from now on."""
    global _prompter  # noqa: PLW0603 - one person sits before one process
    _prompter = other
