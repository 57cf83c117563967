"""What places said that they have free, and what they could not be asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from textual.content import Content
from textual.message import Message

from ...core.inventory import inventory_of
from .environment_rows import inventory_lines

if TYPE_CHECKING:
    from ...core.profiles import ProfileLook
    from .stage import StageView


class Counted(Message):
    """What a backend has now."""

    def __init__(self, name: str, found: Mapping[str, Any]) -> None:
        super().__init__()
        self.name, self.found = name, found


class Free:
    """The answers of places, by profile.

    What a place has is read first from when it was asked for until something else is marked:
    `first` is the profile that this holds for.
    """

    def __init__(self) -> None:
        self.first: str | None = None
        self._told: dict[str, tuple[Mapping[str, Any], float]] = {}
        self._asking: str | None = None
        self._failure: tuple[str, str] | None = None

    @property
    def told_at(self) -> dict[str, float]:
        """When each profile's place said last what it has, as `time.time()`."""
        return {name: moment for name, (_found, moment) in self._told.items()}

    def concerns(self, name: str) -> bool:
        """Whether a profile's place is being asked, or its answer is read first."""
        return name in (self._asking, self.first)

    def ask(self, stage: StageView, profile: ProfileLook) -> None:
        """Ask a profile's backend; the stage is told by `Counted`, or by `Failed`."""
        name, executor, values = profile.name, profile.executor, profile.values
        self._asking, self._failure = name, None
        stage.walk.show_command(f"tunedeck queue {name}")
        stage.walk.begin_errand(
            f"Asking {name}",
            lambda: inventory_of(executor, values),
            lambda found: Counted(name, found),
            owner=stage,
        )

    def took(self, message: Counted) -> None:
        """Keep an answer."""
        self._told[message.name], self._asking = (message.found, time.time()), None

    def failed(self, words: str) -> bool:
        """Keep why the place that was asked did not answer; False where none was asked."""
        if self._asking is None:
            return False
        self._failure = (self._asking, words)
        self.first, self._asking = self._asking, None
        return True

    def lines(self, name: str, width: int) -> list[Content]:
        """What is known of the place of a profile: why it did not answer, and what it said."""
        lines = []
        if self._failure is not None and self._failure[0] == name:
            lines = [Content.styled(f"✗ {self._failure[1]}", "$error"), Content("i asks again\n")]
        if name in self._told:
            lines += inventory_lines(name, *self._told[name], width)
        return lines
