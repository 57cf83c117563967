"""The training loop, from the first validation to the last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Never

import torch

from ..core.chat import ChatTokenizer
from ..core.schema import TrainConfig
from .checkpoints.progress import Progress, random_state
from .checkpoints.saving import Saver
from .checkpoints.writer import Moment
from .data.assemble import TrainingRows
from .data.batches import Batch, Collate
from .data.rows import TokenRows
from .data.streaming import StreamedRows
from .model.build import flops_per_token
from .model.compilation import Compilation
from .parallel.context import DistributedContext
from .parallel.fsdp import synchronize_gradients
from .parallel.sequences import share_sequences
from .preempt import StopRequest
from .reporting.digests import digest_text, rows_digest, weights_digest
from .reporting.evaluate import Validation, evaluate, validation_batches
from .reporting.ledger import Entry, Ledger
from .reporting.metrics import Meter, line, say, source_losses, validation_line
from .reporting.quarantine import quarantine
from .reporting.samples import answers
from .reporting.tracking import Tracker
from .runtime import ModelAndOptimizerState, RuntimeConfig
from .update.finite import UpdateGuard
from .update.loss import SupervisedLoss
from .update.optim import set_rate
from .update.out_of_memory import MicroBatches
from .update.pending import PendingSteps, Settled, Taken
from .update.step import StepResult, train_step


class Ending(StrEnum):
    """How a loop ended that did not fail."""

    FINISHED = "finished"
    EARLY = "stopped early"
    STOPPED = "stopped"


class TrainingPlan(NamedTuple):
    """What is trained on.

    Attributes:
        data: the training rows.
        loader: the micro-batches of each step still to come.
    """

    data: TrainingRows | StreamedRows
    loader: Iterable[list[Batch]]


class ValidationSet(NamedTuple):
    """Validation rows, how they become batches, and the rows of one batch."""

    rows: TokenRows
    collate: Collate
    batch: int


class TrainingLoop:
    """Trains a model from where its progress stands.

    Args:
        config: the run's config.
        run_dir: the run's folder.
        state: model, optimizer and learning rate.
        plan: steps, epochs and the micro-batches of each step still to come.
        validation: None if nothing is validated.
        tokenizer: renders sample prompts.
        saver: saves checkpoints.
        progress: where the run stands; kept up to date.
        tracker: sends metrics on.
        stop: whether the run has been asked to end.
        runtime: device and format.
        context: the ranks that train together; they call everything here together.
        sizes: cuts micro-batches so that they fit into memory.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        *,
        state: ModelAndOptimizerState,
        plan: TrainingPlan,
        validation: ValidationSet | None,
        tokenizer: ChatTokenizer,
        saver: Saver,
        progress: Progress,
        tracker: Tracker,
        stop: StopRequest,
        runtime: RuntimeConfig,
        context: DistributedContext,
        sizes: MicroBatches,
    ) -> None:
        assert state.optimizer is not None and state.scheduler is not None
        self._config, self._run_dir, self._plan = config, run_dir, plan
        self._model, self._optimizer, self._rate = state.model, state.optimizer, state.scheduler
        self._validation, self._tokenizer = validation, tokenizer
        self._saver, self._progress = saver, progress
        self._tracker, self._stop, self._device = tracker, stop, runtime.device
        self._loss_sum = SupervisedLoss(
            state.model,
            autocast=runtime.dtype if runtime.autocast else None,
            sources=len(plan.data.sources),
            shared=share_sequences(context),
        )
        self._context, self._defer = context, config.distributed.defer_fsdp_grad_sync
        self._sizes = sizes
        self._compile = Compilation(
            state.model,
            config.compile,
            steps=plan.data.total_steps(config) - progress.step,
            device=runtime.device,
        )
        self._guard, self._pending = UpdateGuard(state.optimizer, runtime.device), PendingSteps()
        self._ledger = Ledger(run_dir if context.main else None, progress.step)
        # On a CPU the numbers are there; on a GPU reading them waits for the step.
        self._settles_each_step = runtime.device.type == "cpu"
        self._meter = Meter(runtime.device, flops_per_token(state.model), context.world_size)
        self._validated = self._sampled = self._saved = -1 if progress.step == 0 else progress.step

    def run(self) -> Ending:
        """Train until the last step, an early end, or a request to stop.

        Raises:
            TunedeckError: the loss or the gradient norm is not finite.
        """
        try:
            return self._run()
        finally:
            self._ledger.flush()

    def _run(self) -> Ending:
        intervals, ending = self._config.step_scheduler, Ending.FINISHED
        self._model.train()
        if self._progress.step == 0:
            self._sample()
            self._validate()
        first = self._progress.step
        self._meter.start()
        for micro_batches in self._plan.loader:
            before = random_state()
            self._compile(self._progress.step - first)
            if not self._step(micro_batches, before):
                return self._stopped(before)
            step = self._progress.step
            if self._settles_each_step:
                self._settle()
            if step % intervals.log_every_steps == 0:
                self._log()
            improved = _due(step, intervals.val_every_steps) and self._validate()
            if _due(step, self._config.sampling.every_steps):
                self._sample()
            if improved or _due(step, intervals.ckpt_every_steps):
                self._save(random_state(), best=improved)
            if self._no_longer_improves():
                ending = Ending.EARLY
                break
            self._meter.start()
        self._log()
        improved = self._validate()
        if self._stop():
            return self._stopped(random_state())
        self._sample()
        self._save(random_state(), best=improved, last=True, finished=True)
        return ending

    def _step(self, micro_batches: list[Batch], random: dict[str, Any]) -> bool:
        """Train on the rows of one step; False if the run was asked to stop before its end."""
        progress = self._progress
        set_rate(self._optimizer, self._rate(progress.step))
        data = self._plan.data

        def attempt() -> StepResult | None:
            return train_step(
                self._loss_sum,
                self._optimizer,
                list(self._sizes.cut(micro_batches, data.rows, data.layout)),
                guard=self._guard,
                max_grad_norm=self._config.optimizer.max_grad_norm,
                stopping=self._stop,
                device=self._device,
                context=self._context,
                synchronize=self._synchronize,
            )

        result = self._sizes.fit(attempt, micro_batches, step=progress.step + 1, again=random)
        if result is None:
            return False
        rows = (data.rows[row] for batch in micro_batches for row in batch.rows)
        taken = Taken(
            progress.step + 1, progress.samples, random, micro_batches, result, rows_digest(rows)
        )
        self._pending.add(taken)
        progress.step += 1
        progress.samples += result.rows
        self._stop.took(step=self._meter.add(result))
        return True

    def _settle(self) -> None:
        """Read what the steps since the last time came to, and stop where it is no number.

        Raises:
            TunedeckError: the loss or the gradient norm of a step is not finite; neither it nor a
                later one has changed the weights.
        """
        if not len(self._pending):
            return
        started = time.perf_counter()
        steps = self._pending.settle()
        waited = time.perf_counter() - started
        bad = next((index for index, step in enumerate(steps) if not step.finite), len(steps))
        good = steps[:bad]
        self._stop.took(step=self._meter.settle(good, waited))
        sums = self._context.count([number for step in good for number in step.taken.rows])
        for at, step in enumerate(good):
            batch = digest_text(sums[2 * at : 2 * at + 2])
            self._ledger.add(Entry(step.taken.step, batch, step.loss, step.grad_norm))
            self._progress.loss = step.loss
        if bad < len(steps):
            self._diverge(steps[bad])

    def _synchronize(self, last: bool) -> None:
        synchronize_gradients(self._model, last or not self._defer)

    def _log(self) -> None:
        """Print the metric line of the steps since the last one."""
        self._settle()
        if self._meter.empty:
            return
        self._ledger.flush(last=False)
        step = self._progress.step
        epoch = self._plan.data.epoch(self._progress.samples)
        values = self._meter.flush(step=step, epoch=epoch, rate=self._rate(step - 1))
        sums = self._loss_sum.take_sources()
        if sums is not None:
            sums = self._context.sum_loss(sums)
            values |= source_losses(sums, self._plan.data.sources)
        say(line(values))
        self._tracker.log(values, step)

    def _validate(self) -> bool:
        """Take the validation loss; whether it is the best so far."""
        step = self._progress.step
        if self._validation is None or self._validated == step:
            return False
        self._settle()
        rows, collate, size = self._validation
        layout, random = self._plan.data.layout, random_state()

        def attempt() -> Validation | None:
            batches = validation_batches(rows, collate, size)
            return evaluate(
                self._model,
                self._loss_sum,
                self._sizes.cut(batches, rows, layout),
                device=self._device,
                stopping=self._stop,
                context=self._context,
            )

        largest = list(collate(range(len(rows))[-size:]))
        result = self._sizes.fit(attempt, largest, step=step, again=random)
        if result is None:
            return False
        self._validated = step
        say(validation_line(step, result))
        self._tracker.log({"val_loss": result.loss}, step)
        early = self._config.early_stopping
        return self._progress.validated(result, early.min_delta if early else 0.0) and step > 0

    def _no_longer_improves(self) -> bool:
        early = self._config.early_stopping
        return early is not None and self._progress.validations_without_gain >= early.patience

    def _sample(self) -> None:
        """Print the model's answers to the prompts of the config."""
        step, settings = self._progress.step, self._config.sampling
        if self._sampled == step or self._stop():
            return
        self._settle()
        self._sampled = step
        for prompt, answer in answers(
            self._model, self._tokenizer, settings.prompts, max_new_tokens=settings.max_new_tokens
        ):
            say(f"sample {line({'step': step, 'prompt': prompt, 'answer': answer})}")
            if self._stop():
                break

    def _save(
        self,
        random: dict[str, torch.Tensor],
        *,
        best: bool,
        last: bool = False,
        finished: bool = False,
    ) -> None:
        """Save a checkpoint of this step.

        Args:
            random: the random state that the next step starts from.
            best: whether its validation loss is the lowest so far.
            last: whether the run ends here.
            finished: whether nothing is left to train.

        Raises:
            TunedeckError: it cannot be saved.
        """
        step = self._progress.step
        saved = self._saved == step and not (finished and self._saver.owes_form)
        if not self._config.checkpoint.enabled or saved:
            if last:
                self._saver.wait(last=True)
            return
        self._settle()
        self._ledger.weigh(weights_digest(self._trained()))
        self._ledger.flush()
        self._saver.save(self._moment(random, best=best), last=last, finished=finished)
        self._saved = step
        self._stop.took(save=self._saver.seconds)

    def _moment(self, random: dict[str, torch.Tensor], *, best: bool = False) -> Moment:
        return Moment(self._progress.step, self._progress.state(), random, best)

    def _trained(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((n, p) for n, p in self._model.named_parameters() if p.requires_grad)

    def _stopped(self, random: dict[str, Any]) -> Ending:
        self._log()
        self._save(random, best=False, last=True)
        say(f"tunedeck: stopped by {self._stop.reason} after step {self._progress.step}")
        return Ending.STOPPED

    def _diverge(self, bad: Settled) -> Never:
        """End the run before a step that cannot be taken, and keep what it takes to repeat it."""
        taken = bad.taken
        self._progress.step, self._progress.samples = taken.step - 1, taken.samples
        self._ledger.flush()
        raise quarantine(
            self._run_dir,
            self._config,
            bad,
            self._plan.data.place,
            lambda folder: self._saver.save_aside(folder, self._moment(taken.random)),
            self._context,
        )


def _due(step: int, interval: int | None) -> bool:
    return interval is not None and step % interval == 0
