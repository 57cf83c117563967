"""torch.compile on each block of a model, where it can pay."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ...core.schema.parallel import CompileConfig
from ..lines import say
from ..parallel.fsdp import blocks

_WORTH_STEPS = 100
"""In fewer steps the seconds that compiling takes are not won back: a step gains a sixth or so."""


class Compilation:
    """Compiles the blocks of a model when their time has come.

    A model's blocks are alike, so that one compilation serves all, and it comes around all that is
    put around a block from outside: hooks that gather weights are left out of the graph by torch.

    Args:
        model: as it is trained.
        config: whether, and after how many steps.
        steps: length of the run.
        device: where the model computes. On a CPU nothing is gained (measured), and nothing done.
    """

    def __init__(
        self, model: PreTrainedModel, config: CompileConfig, *, steps: int, device: torch.device
    ) -> None:
        self._model, self._after = model, config.after_steps
        self._due = config.enabled
        reason = None
        if device.type != "cuda":
            reason = "it gains nothing on a CPU"
        elif steps - config.after_steps < _WORTH_STEPS:
            reason = f"{steps - config.after_steps} steps are too few to win its time back"
        if self._due and reason is not None:
            say(f"tunedeck: compile.enabled: blocks are not compiled: {reason}")
            self._due = False

    def __call__(self, step: int) -> None:
        """Compile before a step if this is the one; `step` are taken already in this run."""
        if self._due and step >= self._after:
            compile_blocks(self._model)
            say(f"tunedeck: blocks are compiled from step {step + 1} on")
            self._due = False


def compile_blocks(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Compile each block of a model, in place.

    Lengths differ from batch to batch, so that sizes are taken as variable once they were seen to
    vary. Branches that cannot be compiled run as they are.
    """
    for block in blocks(model):
        block.compile(backend=backend)
