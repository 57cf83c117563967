"""When memory runs out: smaller micro-batches, the same steps."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from ...core.errors import TunedeckError
from ...core.files import write_atomic
from ...core.hardware import memory_bytes
from ...core.memory import GIB, ModelShape, estimate, what_would_fit
from ...core.schema import TrainConfig
from ..checkpoints.progress import set_random_state
from ..data.batches import Batch, Layout
from ..data.rows import RowsByNumber
from ..lines import say
from ..parallel.context import DistributedContext
from ..preempt import RestartError
from ..runtime import RuntimeConfig

Result = TypeVar("Result")

REMEMBERED = "micro_batch.json"
"""In the folder of the checkpoints: how small micro-batches had to be made."""

_WORDS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    # Libraries that take memory of a GPU past torch's allocator.
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's memory, or the machine's, is used up."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)
    )


class MicroBatches:
    """Cuts micro-batches into as many pieces as memory asks for.

    The rows of a step stay the same, and so does its loss: each token counts the same however a
    step is cut. What was learnt is kept beside the checkpoints and holds for a run that goes on
    from there.

    Args:
        config: the run's config.
        runtime: knows model and device.
        context: the ranks.
        folder: of the checkpoints.
        restored: the checkpoint that the run goes on from.
    """

    def __init__(
        self,
        config: TrainConfig,
        runtime: RuntimeConfig,
        context: DistributedContext,
        *,
        folder: Path,
        restored: Path | None = None,
    ) -> None:
        self._config, self._runtime, self._context = config, runtime, context
        self._file = folder / REMEMBERED
        self._size = config.step_scheduler.local_batch_size
        self._pieces = _remembered(self._file, restored, self._size)
        if self._pieces > 1:
            say(f"tunedeck: micro-batches of {self._words()}, as memory ran out before")

    def cut(self, batches: Iterable[Batch], rows: RowsByNumber, layout: Layout) -> Iterator[Batch]:
        """The pieces of micro-batches: as many on every rank, empty ones where rows are few."""
        for batch in batches:
            yield from [batch] if self._pieces == 1 else self._cut(batch, rows, layout)

    def _cut(self, batch: Batch, rows: RowsByNumber, layout: Layout) -> Iterator[Batch]:
        numbers, count = batch.rows, self._pieces
        width = -(-len(numbers) // count)
        samples = batch.samples
        for piece in range(count):
            # Rows of a padded batch are in the order of their length.
            mine = numbers[piece::count] if layout.in_line else numbers[piece * width :][:width]
            if mine:
                yield layout.batch([rows[number] for number in mine], mine, samples)
                samples = 0
            elif self._context.world_size > 1:
                yield layout.nothing()

    def fit(
        self,
        attempt: Callable[[], Result],
        batches: Sequence[Batch],
        *,
        step: int,
        again: dict[str, Any],
    ) -> Result:
        """Attempt something, and once more with smaller micro-batches each time memory runs out.

        Args:
            attempt: cuts micro-batches by `cut`, and leaves nothing behind where it fails.
            batches: its micro-batches before they are cut.
            step: the number of the step, for the log.
            again: the random state that each attempt begins with.

        Raises:
            TunedeckError: a micro-batch is a single row already.
            RestartError: there are other ranks, in the middle of the step.
        """
        while True:
            try:
                return attempt()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error, batches, step)
            # Only here is what the failed attempt held on to let go.
            gc.collect()
            if self._runtime.device.type == "cuda":
                torch.cuda.empty_cache()
            set_random_state(again)

    def _halve(self, error: RuntimeError, batches: Sequence[Batch], step: int) -> None:
        most = max((len(batch.rows) for batch in batches), default=1)
        if self._pieces >= most:
            raise self._exhausted(step) from error
        self._pieces *= 2
        said = f"memory ran out in step {step}: micro-batches of {self._words()} from here on"
        write_atomic(self._file, json.dumps(self._record()) + "\n")
        if self._context.world_size > 1:
            raise RestartError(
                said, fix="Resume the run: it goes on from its last checkpoint with these."
            ) from error
        batch = self._config.step_scheduler.global_batch_size
        say(f"tunedeck: warning: {said}; the global batch stays {batch}")

    def _words(self) -> str:
        size = self._size / self._pieces
        rows = "row" if size == 1 else "rows"
        return f"{size:g} {rows}" if size >= 1 else f"1/{self._pieces // self._size} of a pack"

    def _record(self) -> dict[str, Any]:
        run_id = os.environ.get("TUNEDECK_RUN_ID", "")
        return {"micro_batch": self._size / self._pieces, "run_id": run_id}

    def _exhausted(self, step: int) -> TunedeckError:
        device = self._runtime.device
        limit = memory_bytes()
        if device.type == "cuda":
            limit = torch.cuda.get_device_properties(device).total_memory
        return TunedeckError(
            f"Memory runs out in step {step} with a single row in a micro-batch; there are "
            f"{limit / GIB:.1f} GiB.",
            fix=self._help(limit),
        )

    def _help(self, limit: float) -> str:
        """What would fit by the estimate, which knows nothing of what else is in memory."""
        shape = ModelShape.from_config(self._runtime.model_config.to_dict())
        config = self._config.model_dump(mode="json")
        if self._runtime.autocast is None:
            config["model"]["torch_dtype"] = str(self._runtime.dtype).removeprefix("torch.")
        config["step_scheduler"]["local_batch_size"] = 1
        if shape is None:
            return "Lower dataset.seq_length, or set distributed.activation_checkpointing=true."
        world = self._context.world_size
        needed = estimate(config, shape, world)
        if needed.total > limit:
            return (
                f"By the estimate it takes {needed}. {what_would_fit(config, shape, world, limit)}"
            )
        return (
            f"By the estimate {needed} are enough: see what else is in memory, lower "
            "dataset.seq_length, or set distributed.activation_checkpointing=true."
        )


def _remembered(file: Path, restored: Path | None, size: int) -> int:
    """In how many pieces micro-batches of a size are to be cut.

    What another run learnt in the same folder counts only where this one goes on from it.
    """
    places = [file] if restored is None else [restored.parent / REMEMBERED, file]
    for place in places:
        try:
            record = json.loads(place.read_text(encoding="utf-8"))
            most, run_id = float(record["micro_batch"]), record["run_id"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if most > 0 and (restored is not None or run_id == os.environ.get("TUNEDECK_RUN_ID", "-")):
            pieces = 1
            while size / pieces > most:
                pieces *= 2
            return pieces
    return 1
