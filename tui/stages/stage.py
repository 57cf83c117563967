"""What the stages of the walk have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.containers import Vertical
from textual.message import Message

from ...core.drafts import Stage

if TYPE_CHECKING:
    from ...core.selection import Selection
    from ..app import WizardApp
    from ..screens.launch import LaunchScreen


class Chosen(Message):
    """Something was chosen: the selection is now this one, and the walk may go on to a stage."""

    def __init__(self, selection: Selection, go: Stage | None = None) -> None:
        super().__init__()
        self.selection, self.go = selection, go


class StageView(Vertical):
    """A stage. It reads what is chosen from its screen, and changes it by `Chosen` alone."""

    HELP: ClassVar[str] = ""

    @property
    def ready(self) -> bool:
        """Whether the stage has what keys act on, or will not come to have it."""
        return True

    @property
    def walk(self) -> LaunchScreen:
        """The screen that the stage is on."""
        return cast("LaunchScreen", self.screen)

    @property
    def wizard(self) -> WizardApp:
        """The application, by its own type."""
        return self.walk.wizard

    def show(self) -> None:
        """Bring the stage up to date; called whenever it comes to be seen."""

    def take_focus(self) -> None:
        """Put the focus where one begins."""
