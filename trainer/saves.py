"""What a run keeps of itself: checkpoints of its steps, and a step that could not be taken."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..core.errors import TunedeckError
from ..core.schema import TrainConfig
from .checkpoints.progress import Progress
from .checkpoints.saving import Saver
from .checkpoints.writer import Moment
from .data.assemble import TrainingRows
from .data.streaming import StreamedRows
from .parallel.context import DistributedContext
from .preempt import StopRequest
from .reporting.accounts import Accounts
from .reporting.quarantine import quarantine
from .update.pending import Settled


class Saves:
    """Saves the steps of a run, each once; all ranks call it together.

    Args:
        config: the run's config.
        run_dir: the run's folder.
        model: its weights are weighed for the ledger.
        data: knows where rows are from.
        saver: writes checkpoints.
        accounts: the run's books, which are written before a checkpoint is.
        progress: where the run stands.
        stop: learns how long saves take.
        context: the ranks.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        *,
        model: nn.Module,
        data: TrainingRows | StreamedRows,
        saver: Saver,
        accounts: Accounts,
        progress: Progress,
        stop: StopRequest,
        context: DistributedContext,
    ) -> None:
        self._config, self._run_dir = config, run_dir
        self._model, self._data, self._saver = model, data, saver
        self._accounts, self._progress, self._stop = accounts, progress, stop
        self._context = context
        self._last = progress.step or None

    def save(
        self,
        random: dict[str, torch.Tensor],
        *,
        best: bool,
        last: bool = False,
        finished: bool = False,
    ) -> None:
        """Save a checkpoint of this step, whose numbers are settled, unless it is there.

        Args:
            random: the random state that the next step starts from.
            best: whether its validation loss is the lowest so far.
            last: whether the run ends here.
            finished: whether nothing is left to train.

        Raises:
            TunedeckError: it cannot be saved.
        """
        if not self._config.checkpoint.enabled:
            return
        if self._last == self._progress.step and not (finished and self._saver.owes_form):
            if last:
                self._saver.wait(last=True)
            if best:
                self._saver.mark_best(self._progress.step)
            return
        self._accounts.weigh((n, p) for n, p in self._model.named_parameters() if p.requires_grad)
        self._saver.save(self._moment(random, best=best), last=last, finished=finished)
        self._last = self._progress.step
        self._stop.took(save=self._saver.seconds)

    def quarantine(self, bad: Settled) -> TunedeckError:
        """Keep what it takes to repeat a step that is not finite; the error that says where."""
        taken = bad.taken
        self._progress.step, self._progress.samples = taken.step - 1, taken.samples
        self._accounts.flush()
        return quarantine(
            self._run_dir,
            self._config,
            bad,
            self._data.place,
            lambda folder: self._saver.save_aside(folder, self._moment(taken.random)),
            self._context,
        )

    def _moment(self, random: dict[str, torch.Tensor], *, best: bool = False) -> Moment:
        return Moment(self._progress.step, self._progress.state(), random, best)
