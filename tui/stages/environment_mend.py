"""Making the mend of a finding, where it is one that needs nobody's judgement."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from textual.message import Message

from ..background import begin

if TYPE_CHECKING:
    from ...core.findings import Finding
    from ...core.profiles import ProfileLook
    from .stage import StageView


class Mended(Message):
    """A finding's mend was made; the words say what changed."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words


def mend_one(stage: StageView, profile: ProfileLook | None, marked: Finding | None) -> None:
    """Make the mend of the marked finding, or the first of its profile that can be made.

    Args:
        stage: gets `Mended` for each file that was changed.
        profile: that is marked; None where the finding is about a file.
        marked: the finding.
    """
    wizard = stage.wizard
    if not wizard.may_change("Mending"):
        return
    if profile is None:
        wizard.say("Nothing of this can be mended by a key: see what is said to do.")
        return
    chosen = [marked, *profile.findings]
    mendable = next((one for one in chosen if one and one.fix and one.fix.edit), None)
    if mendable is None:
        none = "None of this can be mended without you: enter on it edits its key."
        wizard.say(none if profile.findings else "Nothing is wrong with it.")
        return
    finding = mendable

    def work(_stop: threading.Event) -> None:
        from ...core.env.mend import mend

        for one in mend([finding]):
            one.write()
            words = [line for line in one.diff.splitlines() if line[:1] in "+-"][2:]
            stage.post_message(Mended("\n".join([f"Mended {one.path.name}:", *words])))

    begin(stage, work)
