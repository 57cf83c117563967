from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.model import TokenizerConfig

from ..helpers import rows, write_rows
from .runs import LOSS, Run
from .workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Trained = Callable[..., Run]
FULL: dict[str, Any] = {"step_scheduler": {"global_batch_size": 8, "local_batch_size": 2}}
LORA: dict[str, Any] = {**FULL, "peft": {"dim": 4, "alpha": 8}}


@pytest.mark.parametrize("tables", [FULL, LORA], ids=["full", "lora"])
def test_two_and_four_shards_train_as_one_process(
    tables: dict[str, Any], trained: Trained, chat_file: Path
) -> None:
    check = {"path_or_dataset_id": str(chat_file), "split": "train[:5]"}
    tables = {**tables, "validation_dataset": check}
    alone = trained(1, **tables)
    trained(2, **tables).assert_equals(alone)
    trained(4, **tables).assert_equals(alone)


def test_the_loss_on_each_source_is_that_of_all_ranks(trained: Trained, tmp_path: Path) -> None:
    files = [
        write_rows(tmp_path / f"{name}.jsonl", rows(9, seed)) for seed, name in enumerate("ab")
    ]
    sources = [{"path": str(file), "weight": 1} for file in files]
    tables = {
        "dataset": {"path_or_dataset_id": sources},
        "validation_dataset": {"path_or_dataset_id": sources},
    }
    alone, spread = trained(1, **tables), trained(2, **tables)
    for key in ("loss/a", "loss/b", "val_loss/a", "val_loss/b"):
        assert alone.values(key)
        assert spread.values(key) == pytest.approx(alone.values(key), abs=1e-5), key


def scores_here(config: TrainConfig) -> list[float]:
    """What a reward model of this config says of a row, and then after a step."""
    from tunedeck.trainer import setup
    from tunedeck.trainer.checkpoints.published import Checkpoints
    from tunedeck.trainer.parallel.mesh import leave

    torch.manual_seed(0)
    runtime = setup.validate_and_prepare_config(config, None, 0)
    context = setup.setup_distributed(config, runtime)
    source = config.model.pretrained_model_name_or_path
    tokenizer = setup.get_tokenizer(TokenizerConfig(name=source))
    checkpoints = Checkpoints(Path(), keep_last=None)
    state = setup.setup_model_and_optimizer(
        config, tokenizer, runtime, context, checkpoints, total_steps=1
    )
    assert state.optimizer is not None
    found = []
    for _ in range(2):
        score = state.model(input_ids=torch.tensor([[5, 6, 7, 8]])).logits.sum()
        found.append(score.item())
        (score / context.world_size).backward()
        state.optimizer.step()
    leave()
    return found


@pytest.mark.parametrize("peft", [None, {"dim": 4}], ids=["full", "lora"])
def test_a_reward_models_new_score_is_that_of_one_process(
    peft: Any, workers: Workers, configure: Callable[..., TrainConfig]
) -> None:
    """It begins on top of a language model, whose files have none."""
    model = {"reward_model_cfg": {"enabled": True}}
    config = configure(model=model, peft=peft, optimizer={"lr": 1e-2, "eps": 1e-3})
    (alone,) = workers.run(1, scores_here, config)
    assert alone[0] != alone[1]
    for scores in workers.run(2, scores_here, config):
        assert scores == pytest.approx(alone, abs=LOSS)
