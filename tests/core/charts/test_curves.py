from __future__ import annotations

import math
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.core.charts.curves import Curve, Curves, PointReader


def test_a_spike_survives_any_reduction() -> None:
    curve = Curve()
    for step in range(100_000):
        curve.add(step, 900.0 if step == 54_321 else 1.0)
    steps, values = curve.reduced(80)
    assert len(values) <= 162
    assert values[steps.index(54_321)] == 900.0
    assert steps == sorted(steps)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=700),
    st.integers(1, 9),
    st.integers(0, 700),
)
def test_a_reduced_curve_keeps_its_ends_the_order_and_both_extremes(
    values: list[float], buckets: int, resumed_at: int
) -> None:
    curve = Curve()
    for step, value in enumerate(values):
        curve.add(step, value)
    for step, value in enumerate(values[resumed_at:], resumed_at):
        curve.add(step, value)
    steps, kept = curve.reduced(buckets)
    assert steps == sorted(set(steps))
    assert [values[step] for step in steps] == kept
    assert len(kept) <= 2 * buckets + 2
    assert not values or (min(kept), max(kept)) == (min(values), max(values))
    assert not values or (steps[0], steps[-1]) == (0, len(values) - 1)


def test_few_points_are_not_reduced() -> None:
    curve = Curve()
    for step in range(5):
        curve.add(step, step / 2)
    assert curve.reduced(80) == ([0, 1, 2, 3, 4], [0.0, 0.5, 1.0, 1.5, 2.0])


def test_a_resumed_run_overwrites_the_steps_that_it_repeats() -> None:
    curve = Curve()
    for step, value in [(1, 9.0), (2, 8.0), (3, math.nan), (2, 5.0)]:
        curve.add(step, value)
    assert (list(curve.steps), list(curve.values), list(curve.broken)) == ([1, 2], [9.0, 5.0], [])


def test_a_value_that_is_not_finite_is_told_apart() -> None:
    curve = Curve()
    curve.add(1, 2.0)
    curve.add(2, math.inf)
    assert list(curve.values) == [2.0]
    assert list(curve.broken) == [2]


def test_curves_follow_a_log_that_grows_and_start_over_when_it_is_replaced(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    reader, curves = PointReader(log), Curves()

    def refresh() -> None:
        for batch in reader.batches():
            curves.add(batch)

    refresh()
    assert curves.by_key == {}
    log.write_text("tunedeck: total_steps=9\nstep=1 loss=2.0\nstep=2 lo")
    refresh()
    assert curves.values("loss") == [2.0]
    with log.open("a") as file:
        file.write("ss=1.5\n")
    refresh()
    assert curves.values("loss") == [2.0, 1.5]
    assert curves.latest == {"step": 2, "loss": 1.5}
    assert curves.total_steps == 9
    log.write_text("step=1 loss=7\n")
    refresh()
    assert curves.values("loss") == [7.0]
