"""Training runs on several ranks, and what is compared of them."""

from __future__ import annotations

import json
import math
import signal
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from tunedeck.core.schema import TrainConfig

from ..helpers import metric_lines
from .workers import Workers

LOSS, NORM, WEIGHT = 1e-5, 1e-4, 2e-5
"""How far a run on several ranks may be from one process: loss, norm (relative), weights."""


def train_here(config: TrainConfig, folder: Path) -> int:
    """What a rank runs."""
    from tunedeck.trainer import sft

    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        return sft.main(config, folder)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@dataclass
class Run:
    """What a run printed on its first rank, and its folder."""

    printed: str
    folder: Path
    codes: list[int]

    def values(self, key: str) -> list[float]:
        """The numbers of a key of the metric lines."""
        lines = metric_lines(self.printed, key)
        return [float(values[key]) for values in lines]

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors of the last checkpoint."""
        result = json.loads((self.folder / "result.json").read_text())
        tensors = {}
        for file in Path(result["checkpoint"]).glob("*.safetensors"):
            tensors.update(load_file(file))
        return tensors

    def assert_equals(self, other: Run) -> None:
        """The same losses, norms, validations and weights, but for rounding."""
        for key in ("loss", "val_loss"):
            mine, theirs = self.values(key), other.values(key)
            assert len(mine) == len(theirs) and all(map(math.isfinite, mine))
            assert mine == [pytest_approx(value, LOSS) for value in theirs], key
        norms = other.values("grad_norm")
        assert norms
        assert self.values("grad_norm") == [pytest_approx(v, NORM * abs(v)) for v in norms]
        for key in ("tokens", "val_tokens", "lr"):
            assert self.values(key) == other.values(key)
        weights, expected = self.weights(), other.weights()
        assert weights.keys() == expected.keys() and weights
        for name, tensor in expected.items():
            assert weights[name].shape == tensor.shape
            far = (weights[name].float() - tensor.float()).abs().max().item()
            assert far < WEIGHT, (name, far)


def pytest_approx(value: float, margin: float) -> object:
    """A number that equals those within a margin."""
    import pytest

    return pytest.approx(value, abs=margin, rel=0)


class Runs:
    """Starts runs on workers."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    def train(self, ranks: int, config: TrainConfig, folder: Path) -> Run:
        """Train to the end."""
        self._workers.send(ranks, train_here, config, folder)
        answers = self._workers.take(ranks)
        for _, printed in answers[1:]:
            assert printed == "", "only the first rank speaks"
        return Run(answers[0][1], folder, [code for code, _ in answers])
