"""What lies in a folder, for someone who looks for a data set or a model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..chat.sources import SUFFIXES
from ..errors import UsageError

What = Literal["folder", "data", "model", "file"]

_MOST = 2000


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in a folder.

    Attributes:
        path: where it is.
        what: `data` for a file of rows, `model` for a folder that holds a model's config.
        size: bytes of a file, or how many things are in a folder, as far as that can be read.
    """

    path: Path
    what: What
    size: int

    @property
    def about(self) -> str:
        """What it is, in a few words."""
        if self.what == "model":
            return "a model"
        if self.what == "folder":
            return f"folder, {self.size} inside"
        size, unit = float(self.size), "B"
        for larger in ("kB", "MB", "GB"):
            if size < 1000:
                break
            size, unit = size / 1000, larger
        words = f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        return f"rows, {words}" if self.what == "data" else words


def list_folder(folder: Path, *, models: bool = False) -> list[Entry]:
    """What one may choose or go into: folders, and files of rows; models where those are wanted.

    Hidden things are left out, and so is all that is no data; data and models come first, then
    folders, each by name.

    Args:
        folder: the folder.
        models: look for folders of models instead of files of rows.

    Raises:
        UsageError: if it cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            entries = [
                entry
                for item in found
                if not item.name.startswith(".") and (entry := _entry(Path(item.path), models))
            ]
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be read: {error.strerror}.", fix="Choose another folder."
        ) from error
    entries.sort(key=lambda entry: (entry.what == "folder", entry.path.name.casefold()))
    return entries[:_MOST]


def _entry(path: Path, models: bool) -> Entry | None:
    try:
        if path.is_dir():
            is_model = models and (path / "config.json").is_file()
            return Entry(path, "model" if is_model else "folder", sum(1 for _ in path.iterdir()))
        if not models and path.name.lower().endswith(SUFFIXES):
            return Entry(path, "data", path.stat().st_size)
    except OSError:
        return Entry(path, "folder", 0) if not path.suffix else None
    return None
