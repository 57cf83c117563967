"""Continuing from a checkpoint: what a run takes from it, on whatever number of processes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...core.errors import UsageError
from ...core.schema.continuing import changes
from ..agreement import Together
from ..lines import say
from .checksums import SUMS_FILE, damage, read_sums
from .progress import Progress, set_random_state
from .published import STATE_FILE, checkpoints_before, find_checkpoint
from .training_state import STATE_FOLDER, SavedState
from .weights import BASE_FILE, Base

if TYPE_CHECKING:
    from ..parallel.context import DistributedContext


class Restored:
    """The checkpoint that a run continues from, found and checked; all ranks make it together.

    Args:
        path: itself, or a folder whose latest one is meant.
        context: the ranks; each checks its share of the files.

    Raises:
        UsageError: there is none, or a file of it is not as it was saved.
    """

    def __init__(self, path: str, context: DistributedContext) -> None:
        self._context, together = context, Together(context)
        if context.main:
            # Puts right what a killed process left; what cannot be found all say below.
            with contextlib.suppress(UsageError):
                find_checkpoint(path)
        context.barrier()
        self.folder = find_checkpoint(path)
        if (found := _damage(self.folder, together)) is not None:
            before = (one for one in checkpoints_before(self.folder) if not _damage(one, together))
            whole = next(before, None)
            raise UsageError(
                found,
                fix=f"The one before it is whole; resume with checkpoint.restore_from={whole}"
                if whole is not None
                else "There is none before it that is whole: restore the file, or start again.",
            )
        self._state = json.loads((self.folder / STATE_FILE).read_text(encoding="utf-8"))

    def check_order(self, order: Mapping[str, Any]) -> None:
        """See that the run's place in its data is a place in the data that it has now.

        Args:
            order: what the order of samples depends on, from `data_order`.

        Raises:
            UsageError: it is counted in other samples.
        """
        for change in changes(self._state.get("data", {}), order):
            if change.refused:
                raise UsageError(f"{change.key}: {change.message}", fix=change.fix)
            say(f"tunedeck: warning: {change.key}: {change.message} {change.fix}")

    def check_base(self, base: Base | None) -> None:
        """See that an adapter goes on with the model that it was trained on.

        Args:
            base: the run's own; None for a new model.

        Raises:
            UsageError: it is another one.
        """
        try:
            saved = json.loads((self.folder / BASE_FILE).read_text(encoding="utf-8"))
            name, digest = saved["base"], saved["digest"]
        except (OSError, ValueError, KeyError):
            return
        if base is not None and None not in (digest, base.digest) and digest != base.digest:
            raise UsageError(
                f"The adapter in '{self.folder}' was trained on other weights than those of "
                f"'{base.name}'" + (f": on '{name}'." if name != base.name else "."),
                fix="Set model.pretrained_model_name_or_path to the model that it was trained on.",
            )

    @property
    def progress(self) -> Progress:
        """Where the run stood."""
        return Progress.of(self._state["progress"])

    def set_random_state(self, seed: int) -> None:
        """Continue drawing where this rank's generators stood.

        On another mesh there is no such place: its ranks have other tokens. Each then draws from
        the seed, the step and its own number.
        """
        context = self._context
        same = self._state["mesh"] == context.sizes._asdict()
        saved = SavedState(self.folder).random(context.rank) if same else None
        if saved is not None:
            set_random_state(saved)
        else:
            torch.manual_seed(seed + self.progress.step + context.seed_offset * 2**32)


def _damage(folder: Path, together: Together) -> str | None:
    """What is wrong with the files that a run continues from; each rank looks at its share."""
    recorded = read_sums(folder)
    if not recorded:
        return f"{folder / SUMS_FILE} is missing or empty."
    # Others may leave files of their own, as network file systems do.
    there = (f"{STATE_FOLDER}/{path.name}" for path in (folder / STATE_FOLDER).glob("__*"))
    names = sorted({*there, *(name for name in recorded if name.startswith(f"{STATE_FOLDER}/"))})
    mine = names[together.rank :: together.ranks]
    found: list[Any] = together(lambda: damage(folder, mine))
    return next((words for words in found if words is not None), None)
