"""Writing one checkpoint: every rank its own shards, and all agree before it is published."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.distributed.checkpoint.state_dict_saver import save as save_shards

from ...core.errors import TunedeckError
from ..agreement import FailedSomewhereError, Together
from ..reporting.plain import plain
from .checksums import SUMS_FILE, sha256, write_sums
from .published import STATE_FILE, Checkpoints, flush
from .shard_files import ShardWriter
from .training_state import STATE_FOLDER, SavedState

if TYPE_CHECKING:
    from ..parallel.context import DistributedContext
    from .weights import Weights


class SaveError(TunedeckError):
    """A checkpoint could not be saved; nothing was published.

    Attributes:
        full: whether it was for want of room.
    """

    def __init__(self, message: str, *, full: bool) -> None:
        fix = "Make room or set checkpoint.checkpoint_dir, and resume from the one before."
        super().__init__(message, fix=fix)
        self.full = full


@dataclass(frozen=True, slots=True)
class Moment:
    """What a checkpoint is of.

    Attributes:
        step: optimizer steps taken.
        progress: where the run stands.
        random: generator states of this rank, which the next step starts from.
        best: whether its validation loss is the lowest so far.
        usable: whether it gets the Hugging Face form beside the shards.
    """

    step: int
    progress: dict[str, Any]
    random: dict[str, Tensor]
    best: bool = False
    usable: bool = True


class CheckpointWriter:
    """Writes and publishes checkpoints; all ranks call it together.

    Args:
        weights: the form that a checkpoint is used in.
        context: the ranks.
        together: how they agree.
        order: what the order of samples depends on, which a run that continues compares.
    """

    def __init__(
        self,
        weights: Weights,
        context: DistributedContext,
        together: Together,
        order: Mapping[str, Any],
    ) -> None:
        self._weights, self._context, self._together = weights, context, together
        self._order = dict(order)
        # With one process torch remarks on it at each save.
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)

    def write(self, checkpoints: Checkpoints, moment: Moment, state: dict[str, Any]) -> Path:
        """Write a checkpoint, see that all ranks have, and publish it.

        Args:
            checkpoints: where.
            moment: what it is of.
            state: this rank's part of the training state.

        Returns:
            The published folder.

        Raises:
            SaveError: a rank could not write its part.
        """
        step = moment.step
        folder = checkpoints.unfinished(step)
        try:
            self._together(lambda: checkpoints.begin(step), main_only=True)
            self._together(lambda: self._write_shards(folder / STATE_FOLDER, state))
            parts = self._together(lambda: self._write_beside(folder, moment))
            self._together(lambda: _write_sums(folder, parts), main_only=True)
            publish = self._together(
                lambda: checkpoints.publish(step, best=moment.best), main_only=True
            )
        except FailedSomewhereError as failed:
            if self._context.main:
                checkpoints.discard(step)
            raise SaveError(
                f"The checkpoint of step {step} cannot be saved in '{checkpoints.folder}': "
                f"{failed.failure}",
                full=failed.failure.full,
            ) from failed
        published: Path = publish[0]
        return published

    def _write_shards(self, folder: Path, state: dict[str, Any]) -> None:
        group = self._together.group
        writer = ShardWriter(folder)
        save_shards(state, storage_writer=writer, process_group=group, no_dist=group is None)

    def _write_beside(self, folder: Path, moment: Moment) -> dict[str, str]:
        """Write this rank's share of what is not shards; digests of all that it wrote."""
        rank, ranks = self._context.rank, self._context.world_size
        written = [*(folder / STATE_FOLDER).glob(f"__{rank}_*")]
        if moment.usable:
            saved = SavedState(folder)
            written += self._weights.write(folder, saved.whole, rank=rank, ranks=ranks)
        if self._context.main:
            where = {
                "world_size": ranks,
                "mesh": self._context.sizes._asdict(),
                "progress": plain(moment.progress),
                "data": self._order,
            }
            (folder / STATE_FILE).write_text(json.dumps(where, indent=2) + "\n", encoding="utf-8")
            written += [folder / STATE_FILE, folder / STATE_FOLDER / ".metadata"]
            written += self._weights.write_settings(folder)
        for path in written:
            flush(path)
        return {path.relative_to(folder).as_posix(): sha256(path) for path in written}


def _write_sums(folder: Path, parts: list[dict[str, str]]) -> None:
    write_sums(folder, {name: digest for part in parts for name, digest in part.items()})
    for path in (folder / SUMS_FILE, folder / STATE_FOLDER, folder):
        flush(path)
