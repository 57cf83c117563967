"""Questions a line long, and what all of them understand."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import click

from ...core.cli.output import line, note
from ...core.text import did_you_mean

BACK, QUIT = "back", "quit"


class Left(Exception):
    """The person leaves: by 'quit', ctrl-C or the end of the input."""


@dataclass(frozen=True, slots=True)
class Session:
    """What holds for all prompts.

    Attributes:
        read_only: nothing is submitted, cancelled or written.
        told: what was said already and is not to be said again.
    """

    read_only: bool = False
    told: set[str] = field(default_factory=set)

    def may_change(self, what: str) -> bool:
        """Whether something may be done that changes anything; if not, say why."""
        if self.read_only:
            note(f"{what} is off: the prompts were opened with --read-only.")
        return not self.read_only

    def once(self, text: str) -> None:
        """Say something, unless it was said already."""
        if text not in self.told:
            self.told.add(text)
            note(text)


def ask(question: str, default: str = "") -> str:
    """A line of text; enter alone takes the default.

    Raises:
        Left: at ctrl-C and at the end of the input.
    """
    try:
        text: str = click.prompt(question, default=default, show_default=bool(default), err=True)
    except click.Abort:
        raise Left from None
    return text.strip()


def sure(question: str, *, default: bool) -> bool:
    """Yes or no.

    Raises:
        Left: at ctrl-C and at the end of the input.
    """
    try:
        return click.confirm(question, default=default, err=True)
    except click.Abort:
        raise Left from None


def choose(
    session: Session,
    question: str,
    choices: Sequence[tuple[str, str]],
    default: str = "",
    *,
    actions: Mapping[str, str] | None = None,
    free: bool = False,
) -> str:
    """One of several, by number or by name, or an action that takes a word or none.

    What the actions do is said once, and again at '?'.

    Args:
        session: knows what was said already.
        question: what is chosen.
        choices: name and description; each is said with its number.
        default: what enter alone takes.
        actions: word and what it does. What follows the word is handed on with it.
        free: whether anything else that is typed is taken too.

    Returns:
        The name; or the action, with its words as they were typed.

    Raises:
        Left: at 'quit', ctrl-C and the end of the input.
    """
    names = [name for name, _ in choices]
    for number, (name, about) in enumerate(choices, 1):
        line(f"{number}. {name}: {about}" if about else f"{number}. {name}")
    known = {**(actions or {}), QUIT: "leaves"}
    words = "Or: " + "; ".join(f"{word} {what}" for word, what in known.items()) + "; ? says this."
    session.once(words)
    while True:
        text = ask(question, default)
        first = text.partition(" ")[0]
        if text == "?":
            note(words)
            continue
        if text.isdigit() and 1 <= int(text) <= len(names):
            return names[int(text) - 1]
        if text in names:
            return text
        if first == QUIT:
            raise Left
        if first in known or (free and text):
            return text
        if text:
            hint = did_you_mean(text, [*names, *known])
            note(f"'{text}' is none of them; type a number or a name. {hint}".strip())


def command(*words: str) -> int:
    """Do what a command of Tunedeck does, and return its exit code; the command is said first."""
    from ...core.cli.main import run

    note(f"$ {shlex.join(['tunedeck', *words])}")
    return run(words)
