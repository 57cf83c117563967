"""Kinds of parallelism together, with every kind of training: the table of docs/parallelism.md.

A mixture-of-experts model on packed documents has something to split for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS: dict[str, Any] = {"global_batch_size": 4, "local_batch_size": 1, "max_steps": 2}
ADAPTER = {"dim": 4, "alpha": 8}
TRAININGS: dict[str, dict[str, Any] | None] = {
    "full": None,
    "lora": ADAPTER,
    "rslora": {**ADAPTER, "use_rslora": True},
    "dora": {**ADAPTER, "use_dora": True},
}
MESHES: dict[str, tuple[int, dict[str, Any]]] = {
    "fsdp": (4, {}),
    "ddp": (2, {"strategy": "ddp"}),
    "hsdp": (4, {"dp_replicate_size": 2}),
    "fsdp-tp": (4, {"tp_size": 2}),
    "fsdp-sp": (4, {"tp_size": 2, "sequence_parallel": True}),
    "fsdp-cp": (4, {"cp_size": 2}),
    "fsdp-ep": (4, {"ep_size": 2}),
    "replicas-tp": (4, {"dp_replicate_size": 2, "tp_size": 2}),
    "replicas-sp": (4, {"dp_replicate_size": 2, "tp_size": 2, "sequence_parallel": True}),
    "replicas-cp": (4, {"dp_replicate_size": 2, "cp_size": 2}),
    "replicas-ep": (4, {"dp_replicate_size": 2, "ep_size": 2}),
    "tp-cp": (4, {"tp_size": 2, "cp_size": 2}),
    "sp-cp": (4, {"tp_size": 2, "cp_size": 2, "sequence_parallel": True}),
    "tp-ep": (4, {"tp_size": 2, "ep_size": 2}),
    "sp-ep": (4, {"tp_size": 2, "ep_size": 2, "sequence_parallel": True}),
    "cp-ep": (4, {"cp_size": 2, "ep_size": 2}),
    # Experts are fewer than the ranks that share them: some ranks hold none.
    "fsdp-sp-cp": (8, {"tp_size": 2, "cp_size": 2, "sequence_parallel": True}),
}
EIGHT = "fsdp-sp-cp"


@pytest.mark.parametrize(
    ("mesh", "training"),
    [
        *((mesh, kind) for mesh in MESHES for kind in ("full", "lora", "dora") if mesh != EIGHT),
        # Twice the ranks take longer than all the rest of a test.
        (EIGHT, "full"),
        # It differs from LoRA in a factor alone.
        *((mesh, "rslora") for mesh in ("fsdp", "sp-ep", "cp-ep")),
    ],
)
def test_a_mesh_trains_as_one_process(
    mesh: str, training: str, models_of: Callable[[str], Path], trained: Callable[..., Run]
) -> None:
    tables = {
        "model": {"pretrained_model_name_or_path": str(models_of("mixtral"))},
        "packed_sequence": {"packed_sequence_size": 100},
        "step_scheduler": STEPS,
        "peft": TRAININGS[training],
    }
    ranks, distributed = MESHES[mesh]
    trained(ranks, **tables, distributed=distributed).assert_equals(trained(1, **tables))
