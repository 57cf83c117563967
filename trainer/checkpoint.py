"""Checkpoints: published whole or not at all, with links to the latest and the best."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from ..core.errors import TunedeckError, UsageError

if TYPE_CHECKING:
    import peft
    from torch.optim import Optimizer

STATE_FILE = "training_state.pt"
_NAME = re.compile(r"step_(\d{6,})")
_IN_PROGRESS, _REPLACED, _REMOVED = ".in_progress", ".replaced", ".removed"


class Checkpoints:
    """The checkpoint folder of a run.

    A checkpoint is written under a name that ends in `.in_progress`, flushed to disk and then
    renamed to `step_000020`, and renamed again before it is deleted: a folder of that name is
    complete, whatever happened. `latest` and `best` are links.

    Args:
        folder: holds the checkpoints; made when the first is saved.
        keep_last: how many of the newest are kept beside those that a link points to; None keeps
            all.
    """

    def __init__(self, folder: Path, *, keep_last: int | None) -> None:
        self.folder = folder
        self._keep_last = keep_last

    def save(self, step: int, write: Callable[[Path], None], *, best: bool) -> Path:
        """Write a checkpoint, publish it, and remove those that are no longer kept.

        Args:
            step: optimizer steps taken.
            write: puts the files into a folder.
            best: whether it is the best one so far.

        Raises:
            TunedeckError: the disk is full or the folder not writable; nothing was published.
        """
        final = self.folder / f"step_{step:06d}"
        temporary = final.with_suffix(_IN_PROGRESS)
        try:
            _tidy(self.folder)
            temporary.mkdir(parents=True)
            write(temporary)
            for path in (*temporary.rglob("*"), temporary):
                _flush(path)
        # torch's and safetensors' writers have errors of their own for a full disk.
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise TunedeckError(
                f"The checkpoint of step {step} cannot be saved in '{self.folder}': {error}",
                fix="Make room or set checkpoint.checkpoint_dir, and resume from the one before.",
            ) from error
        self._publish(temporary, final)
        self._link("latest", final)
        if best:
            self._link("best", final)
        self._remove_old()
        return final

    def _publish(self, temporary: Path, final: Path) -> None:
        """Give a complete folder its name; a resumed run may have been at that step before."""
        replaced = final.with_suffix(_REPLACED)
        if final.exists():
            final.replace(replaced)
        temporary.replace(final)
        _flush(self.folder)
        shutil.rmtree(replaced, ignore_errors=True)

    def target(self, link: str) -> Path | None:
        """The checkpoint that `latest` or `best` points to."""
        path = self.folder / link
        return self.folder / path.readlink() if path.is_symlink() else None

    def load_adapter(self, adapter: peft.PeftModel, folder: Path) -> None:
        """Put a checkpoint's adapter weights into an adapter of the same shape.

        Raises:
            UsageError: the folder holds no adapter, or one of another shape.
        """
        import peft
        import torch
        from safetensors.torch import load_file

        from .parallel.tensors import piece_of

        file = folder / "adapter_model.safetensors"
        if not file.is_file():
            raise UsageError(f"'{folder}' holds no adapter.", fix="Resume with the same peft.")
        saved = load_file(file)
        wanted: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(adapter)
        fix = "Resume with the peft settings that it was trained with."
        if unknown := sorted(saved.keys() - wanted.keys()):
            raise UsageError(
                f"The adapter in '{folder}' has weights that peft does not ask for: {unknown[0]}.",
                fix=fix,
            )
        for name, weight in wanted.items():
            if name not in saved or saved[name].shape != weight.shape:
                raise UsageError(
                    f"The adapter in '{folder}' has another shape than peft asks for.", fix=fix
                )
            # All of them share their memory with the adapter.
            weight.detach().copy_(piece_of(saved[name], weight))

    def load_optimizer(self, optimizer: Optimizer, folder: Path) -> None:
        """Put a checkpoint's optimizer state into an optimizer over the same parameters.

        Raises:
            UsageError: it belongs to other parameters.
        """
        from .parallel.tensors import piece_of

        state = read_state(folder)["optimizer"]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for index, parameter in enumerate(parameters):
            for name, value in state["state"].get(index, {}).items():
                if value.shape == parameter.shape:
                    state["state"][index][name] = piece_of(value, parameter)
        try:
            optimizer.load_state_dict(state)
        except ValueError as error:
            raise UsageError(
                f"The optimizer state in '{folder}' belongs to other parameters: {error}",
                fix="Resume with the model, peft and optimizer settings that it was saved with.",
            ) from error

    def _link(self, name: str, target: Path) -> None:
        temporary = self.folder / f".{name}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        temporary.replace(self.folder / name)

    def _remove_old(self) -> None:
        if self._keep_last is None:
            return
        kept = {self.target("latest"), self.target("best")}
        for path in sorted(_published(self.folder), key=_step)[: -self._keep_last]:
            if path not in kept:
                shutil.rmtree(path.replace(path.with_suffix(_REMOVED)))


def find_checkpoint(path: str) -> Path:
    """The checkpoint that `checkpoint.restore_from` means: itself, or the latest in a folder.

    Raises:
        UsageError: there is no checkpoint that a run can continue from.
    """
    folder = Path(path).expanduser()
    for place in (folder.parent, folder, folder / "checkpoints"):
        _tidy(place)
    for candidate in (folder, folder / "latest", folder / "checkpoints" / "latest"):
        if (candidate / STATE_FILE).is_file():
            return candidate.resolve()
    there = "There is nothing" if not folder.exists() else "There is no complete checkpoint"
    raise UsageError(
        f"checkpoint.restore_from: {there} at '{path}'.",
        fix="Name a folder like checkpoints/step_000020, or the folder that holds it.",
    )


def read_state(folder: Path) -> dict[str, Any]:
    """The training state of a checkpoint: optimizer, position, random state.

    Raises:
        UsageError: the file is damaged.
    """
    import torch

    try:
        state: dict[str, Any] = torch.load(
            folder / STATE_FILE, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, EOFError) as error:
        raise UsageError(
            f"The training state in '{folder}' cannot be read: {error}",
            fix="Resume from the checkpoint before it.",
        ) from error
    return state


def _tidy(folder: Path) -> None:
    """Put right what a killed process left: unfinished, half deleted, or half replaced folders."""
    for path in folder.glob("step_*.*"):
        name = path.with_suffix("")
        if path.suffix == _REPLACED and not name.exists():
            path.replace(name)
        elif path.suffix in (_IN_PROGRESS, _REPLACED, _REMOVED):
            shutil.rmtree(path)


def _published(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_"))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
