"""Which steps are saved, now or in the background, and what a failure means for the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from ...core.errors import TunedeckError
from ..agreement import Together
from ..lines import say
from .published import Checkpoints
from .training_state import collect
from .writer import CheckpointWriter, Moment, SaveError

if TYPE_CHECKING:
    from ...core.schema.output import CheckpointConfig
    from ..parallel.context import DistributedContext
    from ..runtime import ModelAndOptimizerState
    from .weights import Weights


class Saver:
    """Saves steps of a run, each once; all ranks call it together.

    In the background, the weights and the optimizer's state are copied to main memory, and written
    from there by a thread of each rank while the training goes on; the next save waits for it.

    A disk that is full is survived once: the run goes on to its next save, at its end to another
    one of the same step. If that fails too, or one fails for another reason, the run ends.

    Args:
        config: whether at all, whether in the background, and which checkpoints get the Hugging
            Face form.
        checkpoints: the run's folder of checkpoints.
        state: model and optimizer.
        weights: the form that a checkpoint is used in.
        context: the ranks.
        order: what the order of samples depends on.
        saved: the step that the run goes on from, whose checkpoint is there.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        checkpoints: Checkpoints,
        state: ModelAndOptimizerState,
        weights: Weights,
        context: DistributedContext,
        order: Mapping[str, Any],
        saved: int | None = None,
    ) -> None:
        assert state.optimizer is not None
        self._enabled, self._consolidate = config.enabled, config.save_consolidated
        self._checkpoints, self._context = checkpoints, context
        self._model, self._optimizer, self._weights = state.model, state.optimizer, weights
        self._writer = CheckpointWriter(weights, context, Together(context), order)
        self._executor = ThreadPoolExecutor(1, "checkpoint") if config.async_save else None
        self._writing: Future[None] | None = None
        self._failed = False
        self._saved = saved
        # Whether that checkpoint lacks the Hugging Face form that the last of a run gets.
        self._owes_form = False
        self._longest = 0.0

    @property
    def seconds(self) -> float:
        """How long it may take from here to a published checkpoint, by the longest save so far.

        In the background another one may have to be waited for.
        """
        return self._longest if self._executor is None else 2 * self._longest

    def due(self, moment: Moment, *, finished: bool) -> bool:
        """Whether `save` of this moment, the run's latest, would write a checkpoint.

        One that is there is written anew where a validation after its save found it the best: what
        it says of the run's best loss is what a run that continues compares with.
        """
        there = self._saved == moment.step and not moment.best
        return self._enabled and (not there or (finished and self._owes_form))

    def save(self, moment: Moment, *, last: bool = False, finished: bool = False) -> None:
        """Save a checkpoint unless it is there, in the background if the run goes on meanwhile.

        Args:
            moment: where the run stands.
            last: whether the run ends here; then it is published when this returns.
            finished: whether nothing is left to train.

        Raises:
            SaveError: this one cannot be saved, or the one before could not be.
        """
        if not self._enabled:
            return
        self._wait()
        if not self.due(moment, finished=finished):
            return
        wanted = self._consolidate
        final = wanted == "final" and (moment.best or finished)
        usable = self._weights.is_adapter or wanted is True or final
        self._owes_form = wanted == "final" and not usable
        moment = replace(moment, usable=usable)
        state = self._state(moment)
        self._saved = moment.step
        if self._executor is None or last:
            self._survive(lambda: self._write(moment, state), last=last)
        else:
            self._writing = self._executor.submit(self._write, moment, _copied(state))

    def _wait(self) -> None:
        """Wait for what is written in the background; raises SaveError if it could not be saved."""
        writing, self._writing = self._writing, None
        if writing is not None:
            self._survive(writing.result)

    def close(self) -> None:
        """Wait for what is written in the background, and say what went wrong with it."""
        try:
            self._wait()
        except TunedeckError as error:
            say(f"tunedeck: warning: {error.message}")
        finally:
            if self._executor is not None:
                self._executor.shutdown()

    def save_aside(self, folder: Path, moment: Moment) -> None:
        """Save a checkpoint in another folder, beside those that the run continues from.

        Raises:
            SaveError: it cannot be saved.
        """
        self._wait()
        self._writer.write(Checkpoints(folder, keep_last=1), moment, self._state(moment))

    def _state(self, moment: Moment) -> dict[str, Any]:
        weights = self._weights.tensors()
        rank = self._context.rank
        return collect(weights, self._model, self._optimizer, moment.random, rank)

    def _write(self, moment: Moment, state: dict[str, Any]) -> None:
        started = time.monotonic()
        published = self._writer.write(self._checkpoints, moment, state)
        self._longest = max(self._longest, time.monotonic() - started)
        if self._context.main:
            say(f"tunedeck: saved {published}")

    def _survive(self, save: Callable[[], None], *, last: bool = False) -> None:
        try:
            save()
            self._failed = False
        except SaveError as error:
            if last or self._failed or not error.full:
                raise
            self._failed, self._saved = True, None
            say(f"tunedeck: warning: {error.message}")
            say("tunedeck: warning: training goes on, and ends if the next save fails as well")


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """The state in main memory, where the training does not change it."""
    options = StagingOptions(
        # Each tensor would be registered with CUDA anew for each save, which takes as long as the
        # copy, and is refused where memory it knows is used again.
        use_pinned_memory=False,
        use_shared_memory=False,
        use_async_staging=False,
        use_non_blocking_copy=False,
    )
    stager = DefaultStager(options)
    try:
        return cast(dict[str, Any], stager.stage(state))
    finally:
        stager.close()


_BYTES_PER_SECOND = 500e6


def expected_seconds(state: ModelAndOptimizerState) -> float:
    """How long a first save may take, by the size of what is saved, on a disk of no great speed."""
    trained = sum(p.numel() for p in state.model.parameters() if p.requires_grad)
    # A weight in float32 and Adam's two moments.
    return trained * 12 / _BYTES_PER_SECOND
