"""The stages of the walk in one line: done, at, and to come."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from ...core.drafts import STAGES, Stage

_NAMES = {"step": "Step", "config": "Config", "environment": "Environment", "review": "Review"}


class Stepper(Static):
    """Shows where one is in the walk; a click goes there."""

    def show(self, at: Stage) -> None:
        """Mark the stage that one is at."""
        parts: list[str | tuple[str, str]] = []
        for number, stage in enumerate(STAGES):
            done = number < STAGES.index(at)
            mark = "✓" if done else str(number + 1)
            style = "bold reverse" if stage == at else "$success" if done else "$text-muted"
            action = f"screen.go('{stage}')"
            parts += [
                (f" {mark} {_NAMES[stage]} ", f"{style} @click={action}"),
                (" → ", "$text-muted"),
            ]
        parts.append((" Run ", "$text-muted"))
        self.update(Content.assemble(*parts))
