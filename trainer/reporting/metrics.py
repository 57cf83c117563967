"""The metric line of a log step, from which charts are drawn on every backend."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from ..update.pending import Settled
from ..update.step import StepResult
from .evaluate import Validation
from .peak import peak_flops


def source_losses(sums: torch.Tensor, names: Sequence[str]) -> dict[str, float]:
    """The mean loss on each source that was trained on, by the key of the metric line.

    Args:
        sums: [sources, 2], sums of losses and counts of targets.
        names: of the sources.
    """
    return {
        f"loss/{name}": total / count
        # The sums may have room for more sources than this data set has.
        for name, (total, count) in zip(names, sums.tolist(), strict=False)
        if count
    }


def validation_values(step: int, result: Validation) -> dict[str, float | int]:
    """The values of a validation's line; the loss on a source is `val_loss/NAME`."""
    values: dict[str, float | int] = {
        "step": step,
        "val_loss": result.loss,
        "val_tokens": result.tokens,
    }
    return values | {f"val_{name}": loss for name, loss in result.sources.items()}


def memory_gib(device: torch.device) -> float:
    """The most memory in use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


@dataclass(slots=True)
class Meter:
    """Gathers steps up to the next log line.

    Attributes:
        device: where the run computes.
        ranks: that take the steps together.
    """

    device: torch.device
    ranks: int = 1
    _loss: float = 0.0
    _grad_norm: float = 0.0
    _tokens: int = 0
    _supervised: int = 0
    _places: int = 0
    _padding: int = 0
    _flops: int = 0
    _steps: int = 0
    _seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    @property
    def empty(self) -> bool:
        """Whether no step was taken since the last line."""
        return self._supervised == 0

    def start(self) -> None:
        """The time from here to the next `add` is training time."""
        self._started = time.perf_counter()

    def add(self, result: StepResult) -> float:
        """Count a step; returns the seconds it took, which on a GPU may go on."""
        seconds = time.perf_counter() - self._started
        self._seconds += seconds
        self._steps += 1
        self._tokens += result.tokens
        self._supervised += result.supervised
        self._places += result.places
        self._padding += result.padding
        self._flops += result.flops
        return seconds

    def settle(self, steps: Sequence[Settled], waited: float) -> float:
        """Add the numbers of steps that were counted before.

        Args:
            steps: in order, all of them finite.
            waited: seconds until they were known, in which a GPU still computed.

        Returns:
            Seconds a step, since the last line.
        """
        for one in steps:
            self._loss += one.loss * one.taken.result.supervised
            self._grad_norm = one.grad_norm
        self._seconds += waited
        return self._seconds / max(self._steps, 1)

    def flush(self, *, step: int, epoch: int, rate: float) -> dict[str, float | int]:
        """The values of the metric line over the steps since the last one, and start anew."""
        seconds = max(self._seconds, 1e-9)
        values: dict[str, float | int] = {
            "step": step,
            "epoch": epoch,
            "loss": self._loss / self._supervised,
            "grad_norm": self._grad_norm,
            "lr": rate,
            "tokens": self._tokens,
            "tokens_per_s": self._tokens / seconds,
            "supervised_tokens_per_s": self._supervised / seconds,
            "padding": self._padding / max(self._places, 1),
            "mem_gib": memory_gib(self.device),
        }
        peak = peak_flops(self.device)
        if peak is not None and self._flops:
            values["mfu"] = self._flops / seconds / (peak * self.ranks)
        self._loss, self._tokens, self._supervised, self._seconds = 0.0, 0, 0, 0.0
        self._places = self._padding = self._steps = self._flops = 0
        return values
