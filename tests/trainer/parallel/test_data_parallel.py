from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..helpers import rows, write_rows
from .runs import Run

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
