"""Validation in a run: when it is due anew, whether it is the best so far, whether it improves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..checkpoints.progress import Progress, random_state
from ..data.batches import Collate, Layout
from ..data.rows import TokenRows
from ..lines import line, say
from ..parallel.context import DistributedContext
from ..preempt import StopRequest
from ..runtime import ModelAndOptimizerState
from ..update.loss import SupervisedLoss
from ..update.out_of_memory import MicroBatches
from .evaluate import Validation, evaluate, validation_batches
from .metrics import source_losses, validation_values
from .tracking import Tracker

if TYPE_CHECKING:
    from ...core.schema.optimization import EarlyStoppingConfig


class ValidationSet(NamedTuple):
    """What is validated on.

    Attributes:
        rows: the rows.
        sources: what each source of them is called.
        layout: how rows become a batch.
        collate: makes this rank's batches.
        batch: rows that all ranks take together.
    """

    rows: TokenRows
    sources: tuple[str, ...]
    layout: Layout
    collate: Collate
    batch: int


class Validator:
    """Takes the validation loss.

    Args:
        data: what is validated on; None validates nothing.
        early: ends a run that no longer improves; None never does.
        state: the model, and where it computes.
        loss_sum: its loss.
        sizes: cuts micro-batches so that they fit into memory.
        progress: where the run stands; learns what came of it.
        tracker: sends it on.
        stop: whether the run has been asked to end.
        context: the ranks; all call everything here together.
    """

    def __init__(
        self,
        data: ValidationSet | None,
        early: EarlyStoppingConfig | None,
        state: ModelAndOptimizerState,
        *,
        loss_sum: SupervisedLoss,
        sizes: MicroBatches,
        progress: Progress,
        tracker: Tracker,
        stop: StopRequest,
        context: DistributedContext,
    ) -> None:
        self._data, self._early = data, early
        self._model, self._device = state.model, state.runtime.device
        self._loss_sum, self._sizes = loss_sum, sizes
        self._progress, self._tracker, self._stop = progress, tracker, stop
        self._context = context

    @property
    def due(self) -> bool:
        """Whether there is something to validate on, and this step was not validated yet."""
        return self._data is not None and self._progress.validated_step != self._progress.step

    def __call__(self) -> bool:
        """Take the loss and say it; whether it is the lowest so far.

        Before the first step, and where the run is asked to stop meanwhile, it is not.
        """
        data = self._data
        if data is None or not self.due:
            return False
        step = self._progress.step
        largest = list(data.collate(range(len(data.rows))[-data.batch :]))
        result = self._sizes.fit(
            lambda: self._evaluate(data), largest, step=step, again=random_state()
        )
        if result is None:
            return False
        values = validation_values(step, result)
        say(line(values))
        self._tracker.log(values, step)
        delta = self._early.min_delta if self._early else 0.0
        return self._progress.validated(result, delta) and step > 0

    @property
    def gives_up(self) -> bool:
        """Whether validation has not improved for too long."""
        early, progress = self._early, self._progress
        if early is None or progress.step == 0:
            return False
        return progress.validations_without_gain >= early.patience

    def explain(self) -> None:
        """Say why it gives up."""
        count, progress = self._progress.validations_without_gain, self._progress
        times = "validation" if count == 1 else f"{count} validations"
        delta = self._early.min_delta if self._early else 0.0
        much = f" by more than min_delta={delta:g}" if delta else ""
        say(
            f"tunedeck: stopped early after step {progress.step}: the last {times} did not improve"
            f"{much} on the lowest, val_loss={progress.best_val_loss:.7g}"
        )

    def _evaluate(self, data: ValidationSet) -> Validation | None:
        batches = validation_batches(data.rows, data.collate, data.batch)
        # What an attempt left that memory ran out in.
        self._loss_sum.take_sources()
        result = evaluate(
            self._model,
            self._loss_sum,
            self._sizes.cut(batches, data.rows, data.layout),
            device=self._device,
            stopping=self._stop,
            context=self._context,
        )
        sums = self._loss_sum.take_sources()
        if result is None or sums is None:
            return result
        return result._replace(sources=source_losses(self._context.sum_loss(sums), data.sources))
