"""What saves memory and must change nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Trained = Callable[..., Run]
STEPS: dict[str, Any] = {"global_batch_size": 8, "local_batch_size": 2, "max_steps": 3}
LORA: dict[str, Any] = {"dim": 4, "alpha": 8}


@pytest.mark.parametrize(
    ("ranks", "mesh"),
    [
        (2, {"activation_checkpointing": True}),
        (2, {"cpu_offload": True}),
        (2, {"strategy": "ddp", "defer_fsdp_grad_sync": False}),
        (4, {"tp_size": 2, "sequence_parallel": True, "activation_checkpointing": "selective"}),
        (4, {"cp_size": 2, "activation_checkpointing": True, "cpu_offload": True}),
    ],
)
def test_recomputing_offloading_and_copies_change_no_result(
    ranks: int, mesh: dict[str, Any], trained: Trained
) -> None:
    tables = {"step_scheduler": STEPS, "peft": LORA}
    trained(ranks, **tables, distributed=mesh).assert_equals(trained(1, **tables))
