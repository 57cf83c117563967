from __future__ import annotations

import math

import pytest

from tunedeck.core.schema import TrainConfig
from tunedeck.trainer.update.schedule import Schedule

PEAK = 1.0


def schedule(table: object, total_steps: int = 100) -> Schedule:
    config = TrainConfig.model_validate(
        {
            "model": {"pretrained_model_name_or_path": "m"},
            "dataset": {"path_or_dataset_id": "d"},
            "optimizer": {"lr": PEAK},
            "lr_scheduler": table,
        }
    )
    return Schedule(PEAK, config.lr_phases(), total_steps)


def test_without_a_schedule_the_rate_is_constant() -> None:
    assert {schedule(None)(step) for step in range(100)} == {PEAK}


def test_the_warm_up_rises_linearly_from_a_tenth() -> None:
    rate = schedule({"lr_decay_style": "constant", "lr_warmup_steps": 10})
    assert rate(0) == pytest.approx(0.1)
    assert rate(5) == pytest.approx(0.55)
    assert rate(10) == rate(99) == PEAK


def test_a_warm_up_that_is_not_set_takes_a_tenth_of_the_run() -> None:
    rate = schedule({"lr_decay_style": "constant"}, total_steps=50)
    assert rate(4) < PEAK == rate(5)


def test_cosine_and_linear_reach_the_lowest_rate_at_the_end() -> None:
    cosine = schedule({"lr_decay_style": "cosine", "lr_warmup_steps": 0, "min_lr": 0.2})
    linear = schedule({"lr_decay_style": "linear", "lr_warmup_steps": 0})
    assert cosine(50) == pytest.approx(0.6)
    assert cosine(25) == pytest.approx(0.2 + 0.8 * (math.cos(math.pi / 4) + 1) / 2)
    assert linear(50) == pytest.approx(0.505)
    assert cosine(100) == pytest.approx(0.2)
    assert linear(100) == linear(1000) == pytest.approx(0.01)


def test_the_decay_may_end_before_the_run() -> None:
    rate = schedule({"lr_decay_style": "linear", "lr_warmup_steps": 10, "lr_decay_steps": 60})
    assert rate(35) == pytest.approx(0.505)
    assert rate(60) == rate(99) == pytest.approx(0.01)


def test_wsd_holds_the_rate_and_decays_at_the_end() -> None:
    table = {"lr_decay_style": "wsd", "lr_warmup_steps": 5, "lr_decay_steps": 20, "min_lr": 0}
    rate = schedule(table)
    assert {rate(step) for step in range(5, 81)} == {PEAK}
    assert rate(90) == pytest.approx(0.5)
    assert rate(100) == 0


def test_schedules_follow_each_other_at_their_milestones() -> None:
    rate = schedule(
        [
            {"lr_decay_style": "linear", "lr_warmup_steps": 0, "min_lr": 0.5},
            {"lr_decay_style": "constant", "lr_warmup_steps": 0},
            {"milestones": [40]},
        ]
    )
    assert rate(20) == pytest.approx(0.75)
    assert rate(40) == rate(99) == PEAK
