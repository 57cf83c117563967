"""Adapters on a base in four or eight bits, which every rank has whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from .runs import LOSS, Run, pytest_approx

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Trained = Callable[..., Run]
STEPS: dict[str, Any] = {
    "global_batch_size": 4,
    "local_batch_size": 1,
    "max_steps": 4,
    "ckpt_every_steps": 2,
}
MESHES = [
    (2, {}),
    (2, {"strategy": "ddp"}),
    (2, {"cp_size": 2}),
    (4, {"dp_replicate_size": 2}),
    (4, {"cp_size": 2, "activation_checkpointing": True}),
]


@pytest.mark.parametrize(("quantization", "dora"), [("nf4", False), ("nf4", True), ("int8", False)])
def test_adapters_on_a_quantized_base_train_as_on_one_process(
    quantization: str, dora: bool, trained: Trained
) -> None:
    pytest.importorskip("bitsandbytes")
    peft = {"dim": 4, "alpha": 8, "quantization": quantization, "use_dora": dora}
    tables = {"peft": peft, "step_scheduler": STEPS}
    keep = {"keep_last": None}
    alone = trained(1, **tables, checkpoint=keep)
    for number, (ranks, mesh) in enumerate(MESHES[: 2 if dora else None]):
        run = trained(ranks, name=f"mesh_{number}", **tables, distributed=mesh)
        run.assert_equals(alone)
    restore = {"restore_from": str(alone.folder / "checkpoints/step_000002")}
    rest = trained(2, name="rest", **tables, checkpoint=restore)
    expected = alone.values("loss")[2:]
    assert rest.values("loss") == [pytest_approx(value, LOSS) for value in expected]
