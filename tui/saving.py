"""Saving a launch under a name, from whichever screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..core.errors import TunedeckError
from .screens.ask import AskText
from .words import trouble

if TYPE_CHECKING:
    from .app import WizardApp


def ask_and_save(app: WizardApp, plan: Mapping[str, Any], suggested: str) -> None:
    """Ask for a name, and save a plan's ingredients and its lock under it.

    Args:
        app: asks, and says how it went.
        plan: `Plan.to_json()`, from a plan just made or from a run's record.
        suggested: the name that is there at first.
    """
    from ..core import locations
    from ..core.replays.files import replay_file
    from ..core.replays.replay import save_replay

    def wrong(name: str) -> str:
        try:
            file = replay_file(name, locations.replays_dir())
        except TunedeckError as error:
            return f"{error.message} {error.fix}"
        return f"There is a replay '{name}' already." if file.exists() else ""

    def named(name: str | None) -> None:
        if name is None:
            return
        try:
            file = save_replay(plan, name)
        except (TunedeckError, OSError) as error:
            app.say(trouble(error), severity="error")
        else:
            app.say(f"Saved as {file}. Run it again: tunedeck replay {name}")

    about = "A name: letters, digits, '.', '_' and '-'."
    app.push_screen(AskText("Save as a replay", about, suggested.replace("/", "-"), wrong), named)
