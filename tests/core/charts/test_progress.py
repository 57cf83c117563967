from __future__ import annotations

import pytest

from tunedeck.core.charts.progress import Pace, planned_steps, total_steps


def test_the_trainer_says_how_many_steps_there_are() -> None:
    assert total_steps(b"tunedeck: rows=400 total_steps=150 world_size=1") == 150
    assert total_steps(b"step=1 loss=2") is None


def test_a_plan_tells_its_steps_where_it_limits_them() -> None:
    assert planned_steps({"config_values": {"step_scheduler": {"max_steps": 7}}}) == 7
    assert planned_steps({"config_values": {}}) is None


def test_time_left_follows_from_the_speed_so_far() -> None:
    pace = Pace(total=100)
    pace.saw(10.0, 0)
    assert pace.seconds_left is None
    pace.saw(20.0, 20)
    assert pace.share == pytest.approx(0.2)
    assert pace.seconds_left == pytest.approx(40.0)


def test_only_the_speed_of_late_counts() -> None:
    pace = Pace(total=1000)
    pace.saw(0.0, 0)
    for second in range(1, 101):
        pace.saw(1000.0 + second, second * 5)
    assert pace.seconds_left == pytest.approx(100.0, rel=0.01)


def test_a_run_that_starts_over_is_timed_anew() -> None:
    pace = Pace(total=100)
    pace.saw(0.0, 50)
    pace.saw(1.0, 10)
    assert pace.seconds_left is None
