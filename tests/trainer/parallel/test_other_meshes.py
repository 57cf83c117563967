"""What a run does beside its steps, and in lower precision, on every kind of mesh."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ..helpers import metric_lines
from .runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Trained = Callable[..., Run]
STEPS: dict[str, Any] = {"global_batch_size": 4, "local_batch_size": 1, "max_steps": 2}
MESHES = [
    (2, {}),
    (2, {"tp_size": 2, "sequence_parallel": True}),
    (2, {"cp_size": 2}),
    (2, {"ep_size": 2}),
    (4, {"tp_size": 2, "cp_size": 2}),
]


def test_answers_are_those_of_one_process(
    trained: Trained, models_of: Callable[[str], Path]
) -> None:
    """Prompts are longer and shorter than what ranks share evenly."""
    sampling = {"prompts": ["1 + 2", "12 + 3"], "max_new_tokens": 5}
    model = {"pretrained_model_name_or_path": str(models_of("mixtral"))}
    tables = {"step_scheduler": STEPS, "sampling": sampling}

    def answers(run: Run) -> list[str]:
        return [line["answer"] for line in metric_lines(run.printed, "prompt")]

    for with_experts in (False, True):
        kind = {**tables, "model": model} if with_experts else tables
        expected = answers(trained(1, **kind))
        assert len(expected) == 4
        for number, (ranks, mesh) in enumerate(MESHES):
            if ("ep_size" in mesh) is with_experts:
                run = trained(ranks, name=f"mesh_{number}", **kind, distributed=mesh)
                assert answers(run) == expected


def test_half_precision_weights_train_on_every_mesh(
    trained: Trained, models_of: Callable[[str], Path]
) -> None:
    """The base in bfloat16, adapters in float32: near to one process, and adapters stay float32."""
    for number, (ranks, mesh) in enumerate(MESHES):
        kind = "mixtral" if "ep_size" in mesh else "llama"
        name = str(models_of(kind))
        model = {"pretrained_model_name_or_path": name, "torch_dtype": "bfloat16"}
        tables = {"model": model, "step_scheduler": STEPS, "peft": {"dim": 4, "alpha": 8}}
        alone = trained(1, **tables)
        run = trained(ranks, name=f"half_{number}", **tables, distributed=mesh)
        assert run.values("loss") == pytest.approx(alone.values("loss"), rel=1e-2)
        assert run.values("grad_norm") == pytest.approx(alone.values("grad_norm"), rel=0.1)
        assert {str(weight.dtype) for weight in run.weights().values()} == {"torch.float32"}


@pytest.mark.parametrize(
    ("kind", "saved", "between"),
    [
        ("llama", ["embed_tokens", "input_layernorm"], "validation_dataset"),
        ("llama", ["lm_head"], "sampling"),
        ("qwen3", ["embed_tokens", "norm"], "validation_dataset"),
    ],
)
def test_whole_modules_beside_adapters_train_on_shards(
    kind: str,
    saved: list[str],
    between: str,
    models_of: Callable[[str], Path],
    chat_file: Path,
    trained: Trained,
) -> None:
    """Their first values come from weights that no rank has whole.

    What lies outside of the blocks is saved as shards also after a pass forward alone.
    """
    passes = {
        "validation_dataset": {"path_or_dataset_id": str(chat_file), "split": "train[:5]"},
        "sampling": {"prompts": ["1 + 2"], "max_new_tokens": 2, "every_steps": 1},
    }
    tables = {
        "model": {"pretrained_model_name_or_path": str(models_of(kind))},
        "step_scheduler": {**STEPS, "val_every_steps": 1, "ckpt_every_steps": 1},
        "peft": {"dim": 4, "alpha": 8, "target_modules": ["q_proj"], "modules_to_save": saved},
        between: passes[between],
    }
    whole = trained(2, **tables, checkpoint={"keep_last": None})
    whole.assert_equals(trained(1, **tables, checkpoint={"keep_last": None}))
    first = str(whole.folder / "checkpoints" / "step_000001")
    rest = trained(2, name="rest", **tables, checkpoint={"restore_from": first})
    assert rest.values("loss") == whole.values("loss")[1:]
    torch.testing.assert_close(rest.weights(), whole.weights(), atol=0, rtol=0)
    assert all(any(f".{name}." in key for key in whole.weights()) for name in saved)
