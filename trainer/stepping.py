"""Taking the steps of a run: at the rate of their turn, in micro-batches that fit."""

from __future__ import annotations

from typing import Any

from ..core.schema import TrainConfig
from .checkpoints.progress import Progress
from .data.assemble import TrainingRows
from .data.batches import Batch
from .data.streaming import StreamedRows
from .model.work import Work
from .parallel.context import DistributedContext
from .parallel.fsdp import synchronize_gradients
from .preempt import StopRequest
from .reporting.accounts import Accounts
from .reporting.digests import rows_digest
from .runtime import ModelAndOptimizerState
from .update.finite import UpdateGuard
from .update.loss import SupervisedLoss
from .update.optim import set_rate
from .update.out_of_memory import MicroBatches
from .update.pending import Taken
from .update.step import StepResult, train_step


class Stepper:
    """Takes one step after the other, and notes what each came to.

    Args:
        config: the run's config.
        state: model, optimizer and learning rate.
        data: the training rows.
        accounts: where steps are noted.
        loss_sum: the model's loss.
        sizes: cuts micro-batches so that they fit into memory.
        progress: where the run stands; kept up to date.
        stop: whether the run has been asked to end.
        context: the ranks; they call everything here together.
    """

    def __init__(
        self,
        config: TrainConfig,
        state: ModelAndOptimizerState,
        data: TrainingRows | StreamedRows,
        accounts: Accounts,
        *,
        loss_sum: SupervisedLoss,
        sizes: MicroBatches,
        progress: Progress,
        stop: StopRequest,
        context: DistributedContext,
    ) -> None:
        assert state.optimizer is not None and state.scheduler is not None
        self._model, self._optimizer, self._rate = state.model, state.optimizer, state.scheduler
        self._max_grad_norm = config.optimizer.max_grad_norm
        self._defer = config.distributed.defer_fsdp_grad_sync
        self._data, self._accounts, self._loss_sum = data, accounts, loss_sum
        self._sizes, self._progress, self._stop = sizes, progress, stop
        self._device, self._context = state.runtime.device, context
        self._guard = UpdateGuard(state.optimizer, self._device)
        self._work = Work(state.model)

    def __call__(self, micro_batches: list[Batch], random: dict[str, Any]) -> bool:
        """Train on the rows of one step; False if the run was asked to stop before its end.

        Args:
            micro_batches: this rank's rows.
            random: the random state before the step.
        """
        progress, data = self._progress, self._data
        set_rate(self._optimizer, self._rate(progress.step))
        result = self._sizes.fit(
            lambda: self._attempt(micro_batches),
            micro_batches,
            step=progress.step + 1,
            again=random,
        )
        sources = self._loss_sum.take_sources()
        if result is None:
            return False
        rows = rows_digest(data.rows[row] for batch in micro_batches for row in batch.rows)
        taken = Taken(progress.step + 1, progress.samples, random, micro_batches, result, rows)
        progress.step += 1
        progress.samples += result.rows
        self._accounts.add(taken, sources)
        return True

    def _attempt(self, micro_batches: list[Batch]) -> StepResult | None:
        # What an attempt left that memory ran out in is no part of the step.
        self._loss_sum.take_sources()
        return train_step(
            self._loss_sum,
            self._optimizer,
            list(self._sizes.cut(micro_batches, self._data.rows, self._data.layout)),
            guard=self._guard,
            max_grad_norm=self._max_grad_norm,
            stopping=self._stop,
            device=self._device,
            context=self._context,
            synchronize=self._synchronize,
            work=self._work,
        )

    def _synchronize(self, last: bool) -> None:
        synchronize_gradients(self._model, last or not self._defer)
