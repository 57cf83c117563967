"""Checkpoints: published whole or not at all, with links to the latest and the best."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import UsageError
from ...core.schema.continuing import STATE_FILE, candidates
from ..lines import say
from .training_state import SavedState, weights_of

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import nn
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

__all__ = ["STATE_FILE", "Checkpoints", "checkpoints_before", "find_checkpoint", "has_state"]

_NAME = re.compile(r"step_(\d{6,})")
_IN_PROGRESS, _REPLACED, _REMOVED = ".in_progress", ".replaced", ".removed"


class Checkpoints:
    """The checkpoint folder of a run.

    A checkpoint is written under a name that ends in `.in_progress`, flushed to disk and then
    renamed to `step_000020`, and renamed again before it is deleted: a folder of that name is
    complete, whatever happened. `latest` and `best` are links; what stands there and is none is
    moved out of the way, and kept.

    Args:
        folder: holds the checkpoints; made when the first is saved.
        keep_last: how many of the newest are kept beside those that a link points to; None keeps
            all.
    """

    def __init__(self, folder: Path, *, keep_last: int | None) -> None:
        self.folder = folder
        self._keep_last = keep_last

    def try_folder(self) -> None:
        """See that checkpoints can be written, before anything has been trained that would be lost.

        Raises:
            UsageError: they cannot.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise UsageError(
                f"checkpoint.checkpoint_dir: nothing can be written to '{self.folder}': "
                f"{error.strerror}",
                fix="Choose another folder, or set checkpoint.enabled=false to keep nothing.",
            ) from error

    def begin(self, step: int) -> Path:
        """Make room for a checkpoint that is about to be written; the folder it is written to.

        Raises:
            OSError: the folder is not writable.
        """
        _tidy(self.folder)
        temporary = self.unfinished(step)
        (temporary / STATE_FILE).parent.mkdir(parents=True)
        return temporary

    def unfinished(self, step: int) -> Path:
        """The folder of a checkpoint while it is written."""
        return self.folder / f"step_{step:06d}{_IN_PROGRESS}"

    def discard(self, step: int) -> None:
        """Remove what was written of a checkpoint that cannot be finished."""
        shutil.rmtree(self.unfinished(step), ignore_errors=True)

    def publish(self, step: int, *, best: bool) -> Path:
        """Give a checkpoint its name, all of whose files are on the disk; remove old ones.

        Args:
            step: of the checkpoint.
            best: whether it is the best one so far.

        Returns:
            Its folder.

        Raises:
            OSError: the folder is not writable.
        """
        final = self.folder / f"step_{step:06d}"
        self._publish(self.unfinished(step), final)
        self._link("latest", final)
        if best:
            self._link("best", final)
        elif self.target("best") == final:
            # It meant what a run before this one had at that step.
            (self.folder / "best").unlink()
        self._remove_old()
        return final

    def _publish(self, temporary: Path, final: Path) -> None:
        """Give a complete folder its name; a resumed run may have been at that step before."""
        replaced = final.with_suffix(_REPLACED)
        if final.exists():
            final.replace(replaced)
        temporary.replace(final)
        flush(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)

    def target(self, link: str) -> Path | None:
        """The checkpoint that `latest` or `best` points to."""
        path = self.folder / link
        return self.folder / path.readlink() if path.is_symlink() else None

    def load_weights(self, model: PreTrainedModel, adapter: PeftModel | None, folder: Path) -> None:
        """Put a checkpoint's weights into a model, or into the adapter in it, piece by piece.

        Raises:
            UsageError: it holds other weights.
        """
        weights = weights_of(model, adapter=adapter is not None)
        SavedState(folder).load_weights(weights)

    def load_optimizer(self, optimizer: Optimizer, model: nn.Module, folder: Path) -> None:
        """Put a checkpoint's optimizer state into an optimizer over parameters of the same names.

        Raises:
            UsageError: it belongs to other parameters.
        """
        SavedState(folder).load_optimizer(optimizer, model)

    def _link(self, name: str, target: Path) -> None:
        self._set_aside(name)
        temporary = self.folder / f".{name}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        temporary.replace(self.folder / name)

    def _set_aside(self, name: str) -> None:
        """A folder copied without its links has folders in their places, which no link replaces."""
        path = self.folder / name
        if path.is_symlink() or not path.exists():
            return
        numbers = itertools.count(1)
        aside = next(p for n in numbers if not (p := path.with_name(f"{name}_copy_{n}")).exists())
        path.replace(aside)
        say(f"tunedeck: warning: {path} was no link; it is kept as {aside.name}")

    def _remove_old(self) -> None:
        if self._keep_last is None:
            return
        kept = {self.target("latest"), self.target("best")}
        for path in sorted(_published(self.folder), key=_step)[: -self._keep_last]:
            if path not in kept:
                shutil.rmtree(path.replace(path.with_suffix(_REMOVED)))


def find_checkpoint(path: str, *, key: str = "checkpoint.restore_from") -> Path:
    """The checkpoint that a path means: itself, or the latest in a folder.

    Args:
        path: a folder.
        key: where it was named, for the message; none if it was typed.

    Raises:
        UsageError: there is no checkpoint that a run can continue from.
    """
    folder = Path(path).expanduser()
    for place in (folder.parent, folder, folder / "checkpoints"):
        _bring_back(place)
    for candidate in candidates(path):
        if has_state(candidate):
            return candidate.resolve()
    there = "There is nothing" if not folder.exists() else "There is no complete checkpoint"
    raise UsageError(
        f"{key}: {there} at '{path}'." if key else f"{there} at '{path}'.",
        fix="Name a folder like checkpoints/step_000020, or the folder that holds it.",
    )


def checkpoints_before(checkpoint: Path) -> list[Path]:
    """The published checkpoints beside one that are of earlier steps, the newest first."""
    beside = _published(checkpoint.parent) if _NAME.fullmatch(checkpoint.name) else iter(())
    earlier = (path for path in beside if _step(path) < _step(checkpoint))
    return sorted(earlier, key=_step, reverse=True)


def has_state(folder: Path) -> bool:
    """Whether a folder is a checkpoint that a run can continue from."""
    return (folder / STATE_FILE).is_file()


def _bring_back(folder: Path) -> None:
    """Give checkpoints their names that a process was killed in the middle of replacing."""
    for path in folder.glob(f"step_*{_REPLACED}"):
        if not path.with_suffix("").exists():
            path.replace(path.with_suffix(""))


def _tidy(folder: Path) -> None:
    """Put right what a killed process left: unfinished, half deleted, or half replaced folders."""
    _bring_back(folder)
    for path in folder.glob("step_*.*"):
        if path.suffix in (_IN_PROGRESS, _REPLACED, _REMOVED):
            shutil.rmtree(path)


def _published(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return iter(())
    return (path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of files, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
