"""`python -m tunedeck.trainer replay-step DIR`: a step that was not finite, taken once more.

On one process, whatever it was taken on: the rows of every rank, one after the other, each with
that rank's random state. Nothing is updated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from ...core.errors import ExitCode
from ...core.schema.parallel import DistributedConfig
from ..checkpoints.progress import set_random_state
from ..checkpoints.published import Checkpoints
from ..model.tokenizer import tokenizer_of
from ..parallel.gradients import total_norm
from ..setup import (
    setup_distributed,
    setup_model_and_optimizer,
    validate_and_prepare_config,
)
from ..update.loss import SupervisedLoss
from .plain import plain
from .quarantine import Quarantined, read_quarantine

_CLOSE = 1e-4


@dataclass(frozen=True, slots=True)
class Part:
    """One micro-batch of the step: whose it is, its rows, and its share of the step's loss."""

    rank: int
    number: int
    rows: tuple[int, ...]
    loss: float


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a step came to, then and now.

    Attributes:
        step: its number.
        recorded: loss and gradient norm as the run saw them.
        found: the same, computed again.
        parts: the micro-batches.
        weight: the first weight that was not finite before the step.
        module: the first module whose output is not finite.
        gradient: the first weight whose gradient is not finite.
        places: file and line of each row.
    """

    step: int
    recorded: tuple[float, float]
    found: tuple[float, float]
    parts: tuple[Part, ...]
    weight: str | None
    module: str | None
    gradient: str | None
    places: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether it came to the same again."""
        return all(_same(a, b) for a, b in zip(self.recorded, self.found, strict=True))


def _same(a: float, b: float) -> bool:
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.isfinite(a) == math.isfinite(b)
    return math.isclose(a, b, rel_tol=_CLOSE, abs_tol=1e-9)


def replay(kept: Quarantined, folder: Path) -> Replayed:
    """Compute a step again.

    Args:
        kept: the step.
        folder: where it is kept.

    Raises:
        UsageError: the model cannot be built as it was.
    """
    alone = DistributedConfig(
        activation_checkpointing=kept.config.distributed.activation_checkpointing
    )
    config = kept.config.model_copy(update={"distributed": alone})
    runtime = validate_and_prepare_config(config, None, rank=0)
    tokenizer = tokenizer_of(config)
    state = setup_model_and_optimizer(
        config,
        tokenizer,
        runtime,
        setup_distributed(config, runtime),
        Checkpoints(folder, keep_last=None),
        init_optimizer=False,
        weights_path=kept.weights,
    )
    model = state.model
    model.train()
    loss_sum = SupervisedLoss(model, autocast=runtime.autocast)
    batches = [batch for share in kept.shares for batch in share.micro_batches]
    supervised = sum(batch.targets.numel() for batch in batches)
    parts = []
    for part, loss in _losses(kept, loss_sum, runtime.device, supervised):
        loss.backward()
        parts.append(part)
    seen: list[str] = []
    if not all(math.isfinite(part.loss) for part in parts):
        # Where a module is looked at, faster code steps aside, which draws another dropout.
        with _watched(model) as seen, torch.no_grad():
            list(_losses(kept, loss_sum, runtime.device, supervised))
    named = [(n, p.grad) for n, p in model.named_parameters() if p.grad is not None]
    norm = total_norm([gradient for _, gradient in named]).item()
    return Replayed(
        kept.step,
        (kept.loss, kept.grad_norm),
        (math.fsum(part.loss for part in parts), norm),
        tuple(parts),
        _first_bad(model.named_parameters()),
        seen[0] if seen else None,
        _first_bad(named),
        tuple(kept.places),
    )


def _losses(
    kept: Quarantined, loss_sum: SupervisedLoss, device: torch.device, supervised: int
) -> Iterator[tuple[Part, torch.Tensor]]:
    """Each micro-batch of the step, with its share of the loss as a scalar to differentiate."""
    for rank, share in enumerate(kept.shares):
        set_random_state(share.random)
        for number, batch in enumerate(share.micro_batches, start=1):
            # Which source a target is from plays no part.
            loss = loss_sum(batch._replace(sources=None), device) / supervised
            yield Part(rank, number, batch.rows, loss.item()), loss


def _first_bad(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    return next((name for name, tensor in tensors if not torch.isfinite(tensor).all()), None)


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[list[str]]:
    """The names of modules whose output was not finite, in the order of computation."""
    seen: list[str] = []

    def look(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            if any(
                isinstance(t, torch.Tensor) and t.is_floating_point() and not t.isfinite().all()
                for t in tensors
            ):
                seen.append(name)

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in model.named_modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def main(arguments: list[str]) -> int:
    """Repeat a step and say what was found; 0 if it came to the same, 1 if not.

    Raises:
        UsageError: the folder holds no step, or its model cannot be built any more.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tunedeck.trainer replay-step", description=__doc__
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="nonfinite_step_… of a run")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    transformers.utils.logging.disable_progress_bar()
    with contextlib.redirect_stdout(sys.stderr):  # what a model says of itself as it is built
        found = replay(read_quarantine(options.folder), options.folder)
    if options.json:
        sys.stdout.write(json.dumps(plain({**asdict(found), "same": found.same})) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _words(found)))
    return int(ExitCode.OK if found.same else ExitCode.FAILURE)


def _words(found: Replayed) -> Iterator[str]:
    yield f"Step {found.step}"
    yield f"  recorded   loss {found.recorded[0]:.7g}, gradient norm {found.recorded[1]:.7g}"
    yield f"  found now  loss {found.found[0]:.7g}, gradient norm {found.found[1]:.7g}"
    for part in found.parts:
        mark = "" if math.isfinite(part.loss) else "  <- not finite"
        yield (
            f"  rank {part.rank}, micro-batch {part.number}: {len(part.rows)} rows, "
            f"share of the loss {part.loss:.7g}{mark}"
        )
    if found.weight is not None:
        yield f"  a weight that is not finite before the step: {found.weight}"
    if found.module is not None:
        yield f"  first output that is not finite: {found.module or 'the model'}"
    if found.gradient is not None:
        yield f"  first gradient that is not finite: {found.gradient}"
    yield "  rows: " + ", ".join(found.places)
    yield "It is the same again." if found.same else "It does not come to the same again."
