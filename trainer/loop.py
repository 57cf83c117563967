"""The training loop, from the first validation to the last checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..core.chat import ChatTokenizer
from ..core.errors import TunedeckError
from ..core.schema import TrainConfig
from .checkpoints.progress import Progress, random_state
from .checkpoints.saving import Saver
from .checkpoints.writer import Moment
from .data.assemble import TrainingRows
from .data.batches import Batch
from .data.streaming import StreamedRows
from .lines import say
from .model.compilation import Compilation
from .parallel.context import DistributedContext
from .parallel.sequences import share_sequences
from .preempt import StopRequest
from .reporting.accounts import Accounts
from .reporting.metrics import Meter
from .reporting.quarantine import quarantine
from .reporting.samples import Sampler
from .reporting.tracking import Tracker
from .reporting.validator import ValidationSet, Validator
from .runtime import ModelAndOptimizerState
from .stepping import Stepper
from .update.loss import SupervisedLoss
from .update.out_of_memory import MicroBatches
from .update.pending import Settled


class Ending(StrEnum):
    """How a loop ended that did not fail."""

    FINISHED = "finished"
    EARLY = "stopped early"
    STOPPED = "stopped"


class TrainingLoop:
    """Trains a model from where its progress stands.

    Args:
        config: the run's config.
        run_dir: the run's folder.
        state: model, optimizer and learning rate.
        data: the training rows.
        loader: the micro-batches of each step still to come.
        validation: None if nothing is validated.
        tokenizer: renders sample prompts.
        saver: saves checkpoints.
        progress: where the run stands; kept up to date.
        tracker: sends metrics on.
        stop: whether the run has been asked to end.
        context: the ranks that train together; they call everything here together.
        sizes: cuts micro-batches so that they fit into memory.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        *,
        state: ModelAndOptimizerState,
        data: TrainingRows | StreamedRows,
        loader: Iterable[list[Batch]],
        validation: ValidationSet | None,
        tokenizer: ChatTokenizer,
        saver: Saver,
        progress: Progress,
        tracker: Tracker,
        stop: StopRequest,
        context: DistributedContext,
        sizes: MicroBatches,
    ) -> None:
        assert state.scheduler is not None
        runtime = state.runtime
        self._config, self._run_dir, self._data, self._loader = config, run_dir, data, loader
        self._model, self._rate = state.model, state.scheduler
        self._progress, self._saver, self._stop, self._context = progress, saver, stop, context
        sources = max(len(one.sources) for one in (data, validation) if one is not None)
        loss_sum = SupervisedLoss(
            state.model,
            autocast=runtime.autocast,
            sources=sources,
            shared=share_sequences(context),
        )
        self._total = data.total_steps(config)
        self._compile = Compilation(
            state.model,
            config.compile,
            steps=self._total - progress.step,
            device=runtime.device,
        )
        # On a CPU the numbers are there; on a GPU reading them waits for the step.
        self._settles_each_step = runtime.device.type == "cpu"
        self._accounts = Accounts(
            run_dir,
            meter=Meter(runtime.device, context.world_size),
            progress=progress,
            tracker=tracker,
            stop=stop,
            context=context,
            sources=data.sources,
        )
        self._take = Stepper(
            config,
            state,
            data,
            self._accounts,
            loss_sum=loss_sum,
            sizes=sizes,
            progress=progress,
            stop=stop,
            context=context,
        )
        self._validator = Validator(
            validation,
            config.early_stopping,
            state,
            loss_sum=loss_sum,
            sizes=sizes,
            progress=progress,
            tracker=tracker,
            stop=stop,
            context=context,
        )
        self._sampler = Sampler(
            config.sampling, state.model, tokenizer, progress=progress, stopping=stop
        )

    def run(self) -> Ending:
        """Train until the last step, an early end, or a request to stop.

        Raises:
            TunedeckError: the loss or the gradient norm is not finite.
        """
        try:
            return self._run()
        finally:
            self._accounts.flush()

    def _run(self) -> Ending:
        self._model.train()
        if self._progress.step == 0:
            self._sample()
            self._validate()
        else:
            # What a run that was stopped owes of its last step.
            self._follow()
        first = self._progress.step
        self._accounts.start()
        for micro_batches in () if self._validator.gives_up else self._loader:
            before = random_state()
            self._compile(self._progress.step - first)
            if not self._take(micro_batches, before):
                return self._stopped(before)
            if self._settles_each_step:
                self._settle()
            self._follow()
            if self._validator.gives_up:
                break
            self._accounts.start()
        if self._validator.gives_up:
            self._validator.explain()
        self._log()
        improved = self._validate()
        if self._stop():
            return self._stopped(random_state())
        self._sample()
        self._save(random_state(), best=improved, last=True, finished=True)
        return Ending.EARLY if self._validator.gives_up else Ending.FINISHED

    def _follow(self) -> None:
        """Log, validate, sample and save after a step, as is due; after the last one all is."""
        intervals, step = self._config.step_scheduler, self._progress.step
        last = step == self._total
        if last or _due(step, intervals.log_every_steps):
            self._log()
        improved = (last or _due(step, intervals.val_every_steps)) and self._validate()
        if last or _due(step, self._config.sampling.every_steps):
            self._sample()
        if improved or _due(step, intervals.ckpt_every_steps):
            # With the form that the last one gets, so that it is written once.
            finished = last or self._validator.gives_up
            self._save(random_state(), best=improved, finished=finished)

    def _settle(self) -> None:
        """Read what the steps since the last time came to.

        Raises:
            TunedeckError: the loss or the gradient norm of one is not finite.
        """
        bad = self._accounts.settle()
        if bad is not None:
            raise self._quarantined(bad)

    def _quarantined(self, bad: Settled) -> TunedeckError:
        """Keep what it takes to repeat a step that is not finite; the error that says where."""
        taken = bad.taken
        self._progress.step, self._progress.samples = taken.step - 1, taken.samples
        moment = self._moment(taken.random)
        return quarantine(
            self._run_dir,
            self._config,
            bad,
            self._data.place,
            lambda folder: self._saver.save_aside(folder, moment),
            self._context,
        )

    def _log(self) -> None:
        """Print the metric line of the steps since the last one."""
        self._settle()
        progress = self._progress
        epoch = self._data.epoch(progress.samples)
        self._accounts.tell(epoch=epoch, rate=lambda: self._rate(progress.step - 1))

    def _validate(self) -> bool:
        """Take the validation loss; whether it is the best so far."""
        if not self._validator.due:
            return False
        self._settle()
        return self._validator()

    def _sample(self) -> None:
        """Print the model's answers to the prompts of the config."""
        self._settle()
        self._sampler()

    def _save(
        self, random: dict[str, Any], *, best: bool, last: bool = False, finished: bool = False
    ) -> None:
        """Save a checkpoint of this step unless it is there.

        Args:
            random: the random state that the next step starts from.
            best: whether its validation loss is the lowest so far.
            last: whether the run ends here.
            finished: whether nothing is left to train.

        Raises:
            TunedeckError: it cannot be saved.
        """
        self._settle()
        moment = self._moment(random, best=best)
        if self._saver.due(moment, finished=finished):
            # The books are written before the checkpoint is, from which a run continues them.
            weights = self._model.named_parameters()
            self._accounts.weigh((name, weight) for name, weight in weights if weight.requires_grad)
        self._saver.save(moment, last=last, finished=finished)
        self._stop.took(save=self._saver.seconds)

    def _moment(self, random: dict[str, Any], *, best: bool = False) -> Moment:
        return Moment(self._progress.step, self._progress.state(), random, best)

    def _stopped(self, random: dict[str, Any]) -> Ending:
        self._log()
        self._save(random, best=False, last=True)
        say(f"tunedeck: stopped by {self._stop.reason} after step {self._progress.step}")
        return Ending.STOPPED


def _due(step: int, interval: int | None) -> bool:
    return interval is not None and step % interval == 0
