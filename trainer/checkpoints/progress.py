"""Where a run stands: all that a resumed run needs besides weights and optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..reporting.evaluate import Validation


@dataclass(slots=True)
class Progress:
    """The position of a run, saved with each checkpoint.

    Attributes:
        step: optimizer steps taken.
        samples: rows trained on, which is the position in the data order.
        loss: of the last step.
        first_val_loss, val_loss, best_val_loss: NaN before the first validation.
        validations_without_gain: in a row, for early stopping.
        validated_step, sampled_step: when that was done last, -1 before; a run that is stopped
            meanwhile owes it.
    """

    step: int = 0
    samples: int = 0
    loss: float = math.nan
    first_val_loss: float = math.nan
    val_loss: float = math.nan
    best_val_loss: float = math.nan
    validations_without_gain: int = 0
    validated_step: int = -1
    sampled_step: int = -1

    def validated(self, result: Validation, min_delta: float) -> bool:
        """Note a validation; whether it is the best so far, which a loss of NaN never is."""
        self.validated_step = self.step
        if math.isnan(self.first_val_loss):
            self.first_val_loss = result.loss
        self.val_loss = result.loss
        before = math.inf if math.isnan(self.best_val_loss) else self.best_val_loss
        gained = result.loss < before - min_delta
        self.validations_without_gain = 0 if gained else self.validations_without_gain + 1
        best = result.loss < before
        if best:
            self.best_val_loss = result.loss
        return best

    def state(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Progress:
        """From plain values; None stands for NaN, which JSON does not know."""
        values: dict[str, Any] = {
            key: math.nan if value is None else value for key, value in state.items()
        }
        return cls(**values)


def random_state() -> dict[str, torch.Tensor]:
    """The state of torch's generators, which dropout and new weights draw from."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, torch.Tensor]) -> None:
    """Continue drawing where `random_state` was taken."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
