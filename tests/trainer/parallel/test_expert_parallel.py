from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .runs import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Trained = Callable[..., Run]
STEPS: dict[str, Any] = {"global_batch_size": 4, "local_batch_size": 1, "max_steps": 3}


@pytest.mark.parametrize("peft", [None, {"dim": 4, "alpha": 8}], ids=["full", "lora"])
def test_spread_experts_train_as_those_of_one_process(
    peft: dict[str, Any] | None, models_of: Callable[[str], Path], trained: Trained
) -> None:
    model = {"pretrained_model_name_or_path": str(models_of("mixtral"))}
    tables = {"model": model, "peft": peft, "step_scheduler": STEPS}
    alone = trained(1, **tables)
    trained(2, **tables, distributed={"ep_size": 2}).assert_equals(alone)
    trained(4, **tables, distributed={"ep_size": 4}).assert_equals(alone)


@pytest.mark.parametrize("sequence", [False, True], ids=["", "sequence"])
@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe", "qwen2_moe"])
def test_experts_under_tensor_parallelism_train_as_those_of_one_process(
    kind: str, sequence: bool, models_of: Callable[[str], Path], trained: Trained
) -> None:
    """Alone, where the tensor parallel ranks share them, and with ranks that have other rows."""
    model = {"pretrained_model_name_or_path": str(models_of(kind))}
    tables = {"model": model, "step_scheduler": STEPS}
    mesh = {"tp_size": 2, "sequence_parallel": sequence}
    alone = trained(1, **tables)
    trained(2, **tables, distributed=mesh).assert_equals(alone)
    trained(4, **tables, distributed={**mesh, "ep_size": 2}).assert_equals(alone)


@pytest.mark.parametrize(
    ("ranks", "mesh"),
    [
        (2, {"tp_size": 2}),
        (4, {"tp_size": 2, "ep_size": 2, "sequence_parallel": True}),
    ],
)
def test_experts_that_are_trained_whole_beside_adapters_are_spread_too(
    ranks: int, mesh: dict[str, Any], models_of: Callable[[str], Path], trained: Trained
) -> None:
    model = {"pretrained_model_name_or_path": str(models_of("mixtral"))}
    peft = {"dim": 4, "target_modules": ["q_proj"], "modules_to_save": ["experts"]}
    tables = {"model": model, "peft": peft, "step_scheduler": STEPS}
    trained(ranks, **tables, distributed=mesh).assert_equals(trained(1, **tables))


def test_experts_that_tensor_parallel_ranks_cannot_share_are_left_whole(
    models_of: Callable[[str], Path], new_model: Callable[[str], dict[str, Any]], trained: Trained
) -> None:
    tables = {**new_model("mixtral"), "step_scheduler": STEPS}
    config = {**tables["model"]["config"], "num_local_experts": 3}
    tables["model"] = {**tables["model"], "config": config}
    for sequence in (False, True):
        mesh = {"tp_size": 2, "sequence_parallel": sequence}
        split = trained(2, name=f"split_{sequence}", **tables, distributed=mesh)
        split.assert_equals(trained(1, **tables))


def test_a_rank_whose_experts_no_token_chooses_goes_along(
    models_of: Callable[[str], Path], trained: Trained
) -> None:
    """One expert a token, and a step of rows so few that most experts have none."""
    config = {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 1}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 260}
    tables = {
        "model": {"pretrained_model_name_or_path": None, "config": {**config, **sizes, **heads}},
        "tokenizer": {"name": str(models_of("mixtral"))},
        "step_scheduler": {"global_batch_size": 4, "local_batch_size": 1, "num_epochs": 1},
        "dataset": {"split": "train[:5]"},
    }
    trained(4, **tables, distributed={"ep_size": 4}).assert_equals(trained(1, **tables))
