"""Reading and writing the env files that a profile is in, in threads."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from textual.message import Message

from ...core.env.edit import Edited, ProfileRow, edit_profile, profile_form
from ...core.env.find import find_env_files
from ...core.env.load import EnvFiles, load_env_files
from ...core.errors import TunedeckError
from ..background import begin

if TYPE_CHECKING:
    from textual.message_pump import MessagePump


class Read(Message):
    """The env files have been read, and the changes been tried on them."""

    def __init__(
        self,
        changes: dict[str, str],
        files: EnvFiles,
        rows: tuple[ProfileRow, ...],
        edited: Edited | None,
    ) -> None:
        super().__init__()
        self.changes, self.files, self.rows, self.edited = changes, files, rows, edited


class Written(Message):
    """The file has been written."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path


class NotWritten(Message):
    """The file could not be written: it was changed meanwhile, or cannot be."""

    def __init__(self, error: TunedeckError | OSError) -> None:
        super().__init__()
        self.error = error


def read(
    owner: MessagePump, name: str, cwd: Path, env_file: Path | None, changes: Mapping[str, str]
) -> None:
    """Read the files and try changes on them.

    Args:
        owner: gets `Read`, or `Failed`.
        name: the profile.
        cwd: where env files are looked for.
        env_file: an env file to use instead of those that are found.
        changes: by key, overrides as `key=value`; they are copied.
    """
    tried = dict(changes)

    def work(_stop: threading.Event) -> None:
        files = load_env_files(find_env_files(cwd, env_file))
        edited = edit_profile(files, name, tried.values()) if tried else None
        owner.post_message(Read(tried, files, profile_form(files, name), edited))

    begin(owner, work)


def write(owner: MessagePump, edited: Edited) -> None:
    """Write the changed file; the owner gets `Written` or `NotWritten`."""

    def work(_stop: threading.Event) -> None:
        try:
            edited.mended.write()
        except (TunedeckError, OSError) as error:
            owner.post_message(NotWritten(error))
        else:
            owner.post_message(Written(edited.mended.path))

    begin(owner, work)
