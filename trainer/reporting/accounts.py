"""What the steps of a run came to: read late, written into the ledger, told in metric lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ..checkpoints.progress import Progress
from ..lines import line, say
from ..parallel.context import DistributedContext
from ..preempt import StopRequest
from ..update.pending import Settled, Taken, settle
from .digests import digest_text, weights_digest
from .ledger import Entry, Ledger
from .metrics import Meter, source_losses
from .tracking import Tracker


class Accounts:
    """Keeps the books of a run.

    The numbers of a step may still be on the device when it is noted; they are read when something
    needs them, those of many steps at once.

    Args:
        folder: the run's folder.
        meter: gathers steps up to the next line.
        progress: where the run stands; learns the loss of the last step.
        tracker: sends metrics on.
        stop: learns how long steps take.
        context: the ranks; all call everything here together.
        sources: names of the sources that are trained on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        meter: Meter,
        progress: Progress,
        tracker: Tracker,
        stop: StopRequest,
        context: DistributedContext,
        sources: Sequence[str],
    ) -> None:
        self._meter, self._progress, self._tracker = meter, progress, tracker
        self._stop, self._context, self._sources = stop, context, sources
        self._pending: list[Taken] = []
        self._ledger = Ledger(folder if context.main else None, progress.step)
        self._sums: torch.Tensor | None = None

    def start(self) -> None:
        """The time from here to the next step's end is training time."""
        self._meter.start()

    def add(self, taken: Taken, sources: torch.Tensor | None) -> None:
        """Note a step.

        Args:
            taken: the step.
            sources: [sources, 2], its sums of losses and counts of targets on this rank; None
                without several sources.
        """
        self._pending.append(taken)
        if sources is not None:
            self._sums = sources if self._sums is None else self._sums + sources
        self._stop.took(step=self._meter.add(taken.result))

    def settle(self) -> Settled | None:
        """Read what the steps since the last time came to, and enter them.

        Returns:
            The first step whose loss or gradient norm is not finite; neither it nor a later one
            has changed the weights, and none of them is entered.
        """
        taken, self._pending = self._pending, []
        if not taken:
            return None
        started = time.perf_counter()
        steps = settle(taken)
        waited = time.perf_counter() - started
        bad = next((index for index, step in enumerate(steps) if not step.finite), len(steps))
        good = steps[:bad]
        self._stop.took(step=self._meter.settle(good, waited))
        sums = self._context.count([number for step in good for number in step.taken.rows])
        for at, step in enumerate(good):
            batch = digest_text(sums[2 * at : 2 * at + 2])
            self._ledger.add(Entry(step.taken.step, batch, step.loss, step.grad_norm))
            self._progress.loss = step.loss
        return steps[bad] if bad < len(steps) else None

    def tell(self, *, epoch: int, rate: Callable[[], float]) -> None:
        """Print the metric line of the settled steps since the last one, if there are any.

        Args:
            epoch: that the run is in.
            rate: gives the learning rate of the last step.
        """
        if self._meter.empty:
            return
        self._ledger.flush(last=False)
        step = self._progress.step
        values = self._meter.flush(step=step, epoch=epoch, rate=rate())
        sums, self._sums = self._sums, None
        if sums is not None:
            sums = self._context.sum_loss(sums)
            values |= source_losses(sums, self._sources)
        say(line(values))
        self._tracker.log(values, step)

    def weigh(self, weights: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Enter a digest of the trained weights as they are after the last step."""
        self._ledger.weigh(weights_digest(weights))
        self.flush()

    def flush(self) -> None:
        """Write what was entered."""
        self._ledger.flush()
