"""The training loop, from the first validation to the last checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any

from ..core.chat import ChatTokenizer
from ..core.schema import TrainConfig
from .checkpoints.progress import Progress, random_state
from .checkpoints.saving import Saver
from .data.assemble import TrainingRows
from .data.batches import Batch
from .data.streaming import StreamedRows
from .model.compilation import Compilation
from .parallel.context import DistributedContext
from .parallel.sequences import share_sequences
from .preempt import StopRequest
from .reporting.accounts import Accounts
from .reporting.metrics import Meter, say
from .reporting.samples import Sampler
from .reporting.tracking import Tracker
from .reporting.validator import ValidationSet, Validator
from .runtime import ModelAndOptimizerState, RuntimeConfig
from .saves import Saves
from .stepping import Stepper
from .update.loss import SupervisedLoss
from .update.out_of_memory import MicroBatches


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
        data: TrainingRows | StreamedRows,
        loader: Iterable[list[Batch]],
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
        assert state.scheduler is not None
        self._config, self._data, self._loader = config, data, loader
        self._model, self._rate = state.model, state.scheduler
        self._progress, self._stop = progress, stop
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
        shared: dict[str, Any] = {
            "loss_sum": loss_sum,
            "sizes": sizes,
            "progress": progress,
            "stop": stop,
            "device": runtime.device,
            "context": context,
        }
        self._take = Stepper(config, state, data, self._accounts, **shared)
        self._validator = Validator(
            validation, config.early_stopping, model=state.model, tracker=tracker, **shared
        )
        self._sampler = Sampler(
            config.sampling, state.model, tokenizer, step=progress.step or None, stopping=stop
        )
        self._saves = Saves(
            config,
            run_dir,
            model=state.model,
            data=data,
            saver=saver,
            accounts=self._accounts,
            progress=progress,
            stop=stop,
            context=context,
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
        intervals, ending = self._config.step_scheduler, Ending.FINISHED
        self._model.train()
        if self._progress.step == 0:
            self._sample()
            self._validate()
        first = self._progress.step
        self._accounts.start()
        for micro_batches in self._loader:
            before = random_state()
            self._compile(self._progress.step - first)
            if not self._take(micro_batches, before):
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
                # With the form that the last one gets, so that it is written once.
                finished = step == self._total or self._validator.gives_up
                self._save(random_state(), best=improved, finished=finished)
            if self._validator.gives_up:
                self._validator.explain()
                ending = Ending.EARLY
                break
            self._accounts.start()
        self._log()
        improved = self._validate()
        if self._stop():
            return self._stopped(random_state())
        self._sample()
        self._save(random_state(), best=improved, last=True, finished=True)
        return ending

    def _settle(self) -> None:
        """Read what the steps since the last time came to.

        Raises:
            TunedeckError: the loss or the gradient norm of one is not finite.
        """
        bad = self._accounts.settle()
        if bad is not None:
            raise self._saves.quarantine(bad)

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
        self._sampler(self._progress.step)

    def _save(self, random: dict[str, Any], *, best: bool, **ending: bool) -> None:
        """Save a checkpoint of this step; the words are those of `Saves.save`."""
        self._settle()
        self._saves.save(random, best=best, **ending)

    def _stopped(self, random: dict[str, Any]) -> Ending:
        self._log()
        self._save(random, best=False, last=True)
        say(f"tunedeck: stopped by {self._stop.reason} after step {self._progress.step}")
        return Ending.STOPPED


def _due(step: int, interval: int | None) -> bool:
    return interval is not None and step % interval == 0
