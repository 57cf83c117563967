"""What is done with a profile: its keys are set, it gets another name, it is taken out."""

from __future__ import annotations

import shlex
import threading
from typing import TYPE_CHECKING

from textual.message import Message

from ...core.env.find import find_env_files
from ...core.env.load import EnvFiles, load_env_files
from ...core.env.profile_tables import Changed, delete_profile, rename_profile
from ...core.errors import TunedeckError
from ..background import begin
from ..screens.ask import AskText, Confirm
from ..words import safe, trouble

if TYPE_CHECKING:
    from ...core.profiles import ProfileLook
    from .stage import StageView


class Renamed(Message):
    """A profile has another name, or none any more; the words say what changed."""

    def __init__(self, name: str, new: str | None, words: str) -> None:
        super().__init__()
        self.name, self.new, self.words = name, new, words


def edit(stage: StageView, profile: ProfileLook | None, name: str, key: str | None) -> None:
    """Open a profile to set its keys.

    Args:
        stage: opens it.
        profile: as it was read; None where there is none of that name, which its screen says.
        name: the profile's.
        key: the key to mark at first.
    """
    from ..screens.profile import ProfileScreen

    if profile is None or _is_in_file(stage, profile):
        selection = stage.walk.selection
        stage.app.push_screen(ProfileScreen(name, selection.cwd, selection.env_file, key))


def ask_rename(stage: StageView, profile: ProfileLook) -> None:
    """Ask for a profile's new name, and write it; the stage is told by `Renamed`."""
    if not _is_in_file(stage, profile) or not stage.wizard.may_change("Renaming"):
        return
    name = profile.name

    def ask(files: EnvFiles) -> None:
        def wrong(new: str) -> str:
            try:
                rename_profile(files, name, new)
            except TunedeckError as error:
                return "" if new == name else trouble(error)
            return ""

        about = "Profiles that extend it follow. A copy of the file as it is stays beside it."
        question = AskText(f"Another name for {name}", about, name, wrong)
        stage.app.call_from_thread(stage.app.push_screen, question, typed)

    def typed(new: str | None) -> None:
        if new and new != name:
            _write(stage, name, new)

    begin(stage, lambda _stop: ask(_files(stage)))


def ask_delete(stage: StageView, profile: ProfileLook) -> None:
    """Ask, and take a profile out of its file; the stage is told by `Renamed`, or by `Failed`."""
    if not _is_in_file(stage, profile) or not stage.wizard.may_change("Deleting"):
        return
    name = profile.name

    def ask(files: EnvFiles) -> None:
        file = delete_profile(files, name).files[0].path.name
        words = f"Take '{name}' out of {file}? A copy of the file as it is stays beside it."
        question = Confirm(words, "Take it out")
        stage.app.call_from_thread(stage.app.push_screen, question, sure)

    def sure(yes: bool | None) -> None:
        if yes:
            _write(stage, name, None)

    begin(stage, lambda _stop: ask(_files(stage)))


def _is_in_file(stage: StageView, profile: ProfileLook) -> bool:
    """Whether a profile stands in a file; if not, say so."""
    if not profile.place.file:
        words = f"'{profile.name}' is built in: g makes an env file that defines it anew."
        stage.wizard.say(words)
    return bool(profile.place.file)


def _files(stage: StageView) -> EnvFiles:
    selection = stage.walk.selection
    return load_env_files(find_env_files(selection.cwd, selection.env_file))


def _write(stage: StageView, name: str, new: str | None) -> None:
    """Change the files as they are now, which may be others than when it was asked for."""

    def work(_stop: threading.Event) -> None:
        from ...core.replays.replay import replays_on

        files = _files(stage)
        changed = delete_profile(files, name) if new is None else rename_profile(files, name, new)
        backups = changed.write()
        naming = replays_on(name, stage.walk.selection.cwd)
        words = [_done(name, new, changed)]
        words += [f"The file as it was is in {safe(path.name)}." for path in backups]
        if naming:
            words.append(f"Saved launches that name '{name}': {', '.join(map(safe, naming))}.")
        same = ["delete", name, "--yes"] if new is None else ["rename", name, new]
        words.append(f"$ {shlex.join(['tunedeck', 'env', *same])}")
        stage.post_message(Renamed(name, new, "\n".join(words)))

    begin(stage, work)


def _done(name: str, new: str | None, changed: Changed) -> str:
    if new is None:
        return f"'{name}' is out of {safe(changed.files[0].path.name)}."
    heirs = ", ".join(map(safe, changed.followed))
    return f"'{name}' is '{new}' now{f', for {heirs} too' if heirs else ''}."
