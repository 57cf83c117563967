"""A wish to stop that one rank hears ends all of them in the same step, ready to go on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tunedeck.core.schema import TrainConfig

from .runs import train_here
from .workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TABLES: dict[str, Any] = {
    "peft": {"dim": 4, "alpha": 8},
    "step_scheduler": {
        **{"global_batch_size": 8, "local_batch_size": 2},
        **{"max_steps": 6, "val_every_steps": 3},
    },
    "checkpoint": {"preempt_signals": ["SIGTERM", "SIGUSR2"]},
}


def told_in_validation(config: TrainConfig, folder: Path, kind: int) -> int:
    """Train; the second rank is told to stop in the middle of the second validation."""
    from tunedeck.trainer.reporting import validator

    original, calls = validator.evaluate, 0

    def evaluate(model: Any, loss_sum: Any, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1

        def told(*inputs: Any) -> Any:
            if calls == 2 and os.environ["RANK"] == "1":
                os.kill(os.getpid(), kind)
            return loss_sum(*inputs)

        return original(model, cast(Any, told), *args, **options)

    validator.evaluate = evaluate
    try:
        return train_here(config, folder)
    finally:
        validator.evaluate = original


def out_of_time(config: TrainConfig, folder: Path) -> int:
    """Train; the second rank knows of a deadline that is over, the first one of none."""
    if os.environ["RANK"] == "1":
        os.environ["TUNEDECK_DEADLINE"] = str(time.time() - 1)
    try:
        return train_here(config, folder)
    finally:
        os.environ.pop("TUNEDECK_DEADLINE", None)


@pytest.mark.parametrize(
    ("kind", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR2, 75), (signal.SIGINT, 130)]
)
def test_a_signal_to_one_rank_during_validation_ends_all(
    kind: signal.Signals,
    code: int,
    workers: Workers,
    configure: Callable[..., TrainConfig],
    chat_file: Path,
    tmp_path: Path,
) -> None:
    config = configure(**TABLES, validation_dataset={"path_or_dataset_id": str(chat_file)})
    workers.send(2, told_in_validation, config, tmp_path, int(kind))
    answers = workers.take(2)
    assert [found for found, _ in answers] == [code, code]
    assert f"stopped by {kind.name} after step 3" in answers[0][1]
    assert json.loads((tmp_path / "result.json").read_text())["steps"] == 3
    assert (tmp_path / "checkpoints/latest").resolve().name == "step_000003"


def test_a_deadline_that_one_rank_knows_of_ends_all(
    workers: Workers, configure: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    workers.send(2, out_of_time, configure(**TABLES), tmp_path)
    answers = workers.take(2)
    assert [found for found, _ in answers] == [75, 75]
    assert "stopped by the deadline after step 0" in answers[0][1]
