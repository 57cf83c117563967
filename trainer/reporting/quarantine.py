"""What is kept of a step whose loss or gradient norm is not finite, so that it can be repeated.

A folder `nonfinite_step_000012` of the run's folder: `step.pt` (rows, micro-batches and random
state of every rank, and what the step came to), `config.json`, and under `weights` a checkpoint of
the weights that it was computed with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import distributed as dist

from ...core.errors import TunedeckError, UsageError
from ...core.files import write_atomic
from ...core.schema import TrainConfig
from ..data.batches import Batch
from ..parallel.context import DistributedContext
from ..update.pending import Settled

STEP_FILE, CONFIG_FILE, WEIGHTS = "step.pt", "config.json", "weights"
_NAMED = 12


class RankShare(NamedTuple):
    """One rank's part of the step.

    Attributes:
        random: the random state before it.
        micro_batches: in order.
    """

    random: dict[str, Any]
    micro_batches: list[Batch]


class Quarantined(NamedTuple):
    """A step as it was kept.

    Attributes:
        step: its number.
        loss, grad_norm: what it came to.
        places: file and line of each row.
        shares: of each rank whose rows are its own.
        config: of the run.
        weights: the checkpoint that it was computed from.
    """

    step: int
    loss: float
    grad_norm: float
    places: list[str]
    shares: list[RankShare]
    config: TrainConfig
    weights: Path


def quarantine(
    run_dir: Path,
    config: TrainConfig,
    bad: Settled,
    place: Callable[[int], str],
    save: Callable[[Path], None],
    context: DistributedContext,
) -> TunedeckError:
    """Keep a step, and word the error that the run ends with; all ranks call it together.

    Args:
        run_dir: the run's folder.
        config: of the run.
        bad: the step.
        place: file and line of a row.
        save: puts a checkpoint of the weights into a folder.
        context: the ranks.
    """
    taken = bad.taken
    folder = run_dir / f"nonfinite_step_{taken.step:06d}"
    rows = [row for batch in taken.micro_batches for row in batch.rows]
    mine = {
        "random": taken.random,
        "places": [place(row) for row in rows],
        "micro_batches": [batch._asdict() for batch in taken.micro_batches],
    }
    # Ranks that share their rows, for tensor or context parallelism, have the same share.
    by_rank = dict(reversed(_gathered((context.data_rank, mine), context)))
    shares = [by_rank[rank] for rank in sorted(by_rank)]
    places = sorted({one for share in shares for one in share["places"]})
    kept = f"It is kept in {folder}"
    try:
        save(folder / WEIGHTS)
        if context.main:
            write_atomic(folder / CONFIG_FILE, config.model_dump_json(exclude={"run"}))
            numbers = {"step": taken.step, "loss": bad.loss, "grad_norm": bad.grad_norm}
            torch.save({**numbers, "places": places, "shares": shares}, folder / STEP_FILE)
    except (TunedeckError, OSError) as error:
        kept = f"It could not be kept: {error}"
    said = ", ".join(places[:_NAMED])
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return TunedeckError(
        f"Step {taken.step} is not finite: loss {bad.loss:g}, gradient norm {bad.grad_norm:g}. "
        f"No update was made. Its rows: {said}{more}. {kept}.",
        fix=f"Find out where it begins: python -m tunedeck.trainer replay-step {folder}. "
        "Look at these rows, lower optimizer.lr, or set model.torch_dtype=float32.",
    )


def _gathered(mine: Any, context: DistributedContext) -> list[Any]:
    """What each rank has, on the first one; what they have themselves on the others."""
    if context.world_size == 1:
        return [mine]
    everyone: list[Any] | None = [None] * context.world_size if context.main else None
    dist.gather_object(mine, everyone)
    return [mine] if everyone is None else everyone


def read_quarantine(folder: Path) -> Quarantined:
    """A step that was kept.

    Raises:
        UsageError: the folder holds none, or one that is damaged.
    """
    try:
        state = torch.load(folder / STEP_FILE, map_location="cpu", weights_only=True)
        config = TrainConfig.model_validate_json((folder / CONFIG_FILE).read_text("utf-8"))
        shares = [
            RankShare(share["random"], [Batch(**batch) for batch in share["micro_batches"]])
            for share in state["shares"]
        ]
        weights = (folder / WEIGHTS / "latest").resolve(strict=True)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise UsageError(
            f"'{folder}' holds no step to repeat: {str(error).partition(chr(10))[0]}",
            fix="Name a folder like nonfinite_step_000012 of a run that ended with a loss that is "
            "not finite.",
        ) from error
    numbers = (state["step"], state["loss"], state["grad_norm"])
    return Quarantined(*numbers, state["places"], shares, config, weights)
