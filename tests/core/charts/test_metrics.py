from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunedeck.core.charts.metrics import Metrics, parse_line, read_metrics, sparkline, to_json

LINE = (
    b"step=12 epoch=0 loss=2.3145 grad_norm=0.91 lr=2.0e-04 tokens=8192 tokens_per_s=10312 "
    b"supervised_tokens_per_s=6120 mem_gib=61.2 mfu=0.41"
)


class TestParsing:
    def test_the_line_of_the_contract(self) -> None:
        point = parse_line(LINE)
        assert point == {
            "step": 12,
            "epoch": 0,
            "loss": 2.3145,
            "grad_norm": 0.91,
            "lr": 2.0e-04,
            "tokens": 8192,
            "tokens_per_s": 10312,
            "supervised_tokens_per_s": 6120,
            "mem_gib": 61.2,
            "mfu": 0.41,
        }
        assert isinstance(point["tokens"], int)

    @pytest.mark.parametrize(
        "prefix", [b"", b"[rank0]: ", b"0: ", b"10%|##  | 1/10\r", b"2025-11-21 INFO "]
    )
    def test_a_launchers_prefix_is_no_matter(self, prefix: bytes) -> None:
        point = parse_line(prefix + b"step=3 loss=1.5")
        assert point == {"step": 3, "loss": 1.5}

    def test_numbers_that_are_not_finite(self) -> None:
        point = parse_line(b"step=3 loss=nan grad_norm=inf lr=-inf")
        assert point is not None
        assert math.isnan(point["loss"])
        assert (point["grad_norm"], point["lr"]) == (math.inf, -math.inf)

    @pytest.mark.parametrize(
        "line",
        [
            b"",
            b"step=",
            b"step=1",
            b"step=x loss=1",
            b"step=1 and then loss=2",
            b"laststep=1 loss=2",
            b"tunedeck: total_steps=60 world_size=1",
            b'sample step=5 prompt="What is 2 + 2?" answer="loss=4"',
            b"step=1 see=https://example.com",
            b"step=1 loss=" + b"9" * 10_000,
        ],
    )
    def test_other_lines_are_none(self, line: bytes) -> None:
        assert parse_line(line) is None

    def test_a_broken_value_is_left_out(self) -> None:
        assert parse_line(b"step=4 loss=2.31Traceback lr=1e-4") == {"step": 4, "lr": 1e-4}

    @given(st.binary(max_size=200))
    def test_garbage_breaks_nothing(self, junk: bytes) -> None:
        parse_line(junk)
        parse_line(b"step=1 " + junk)
        parse_line(junk + b" step=1 loss=2")

    @given(
        st.integers(0, 10**9),
        st.dictionaries(
            st.from_regex(r"[a-z_]{1,12}", fullmatch=True).filter(lambda key: key != "step"),
            st.floats(allow_nan=False, allow_infinity=False),
            min_size=1,
        ),
    )
    def test_what_is_printed_is_read_back(self, step: int, values: dict[str, float]) -> None:
        line = f"step={step} " + " ".join(f"{key}={value!r}" for key, value in values.items())
        assert parse_line(line.encode()) == {"step": step, **values}


class TestSeries:
    def test_training_and_validation_of_a_step_are_one_point(self) -> None:
        metrics = Metrics()
        metrics.feed(b"step=1 loss=2.0")
        metrics.feed(b"step=2 loss=1.5")
        metrics.feed(b"step=2 val_loss=1.7 val_tokens=10")
        assert metrics.points == [
            {"step": 1, "loss": 2.0},
            {"step": 2, "loss": 1.5, "val_loss": 1.7, "val_tokens": 10},
        ]
        assert metrics.series("val_loss") == [1.7]
        assert metrics.latest["loss"] == 1.5

    def test_a_resumed_run_takes_the_place_of_the_steps_it_repeats(self) -> None:
        metrics = Metrics()
        for step, loss in ((1, 3.0), (2, 2.0), (3, 1.0), (2, 2.5), (3, 2.2)):
            metrics.feed(f"step={step} loss={loss}".encode())
        assert metrics.series("loss") == [3.0, 2.5, 2.2]

    def test_a_log_that_is_not_there_has_none(self, tmp_path: Path) -> None:
        assert read_metrics(tmp_path / "log.txt").points == []

    def test_json_knows_no_nan(self, tmp_path: Path) -> None:
        log = tmp_path / "log.txt"
        log.write_bytes(b"hello\nstep=1 loss=nan\r\nstep=2 loss=1.0")
        document = json.dumps(to_json(read_metrics(log).points), allow_nan=False)
        assert json.loads(document) == [{"step": 1, "loss": None}, {"step": 2, "loss": 1.0}]


class TestSparkline:
    def test_it_rises_and_falls_with_the_values(self) -> None:
        assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
        assert sparkline([7, 0], 10) == "█▁"

    def test_a_spike_survives(self) -> None:
        values = [1.0] * 1000
        values[333] = 50.0
        assert sparkline(values, 20).count("█") == 1

    def test_what_is_not_finite_is_marked(self) -> None:
        assert sparkline([1.0, math.nan, 2.0], 3) == "▁×█"
        assert sparkline([math.inf], 3) == "×"

    @given(st.lists(st.floats(), max_size=300), st.integers(0, 80))
    @example([1.7976931348623157e308, -9.9e291], 1)
    def test_it_never_grows_over_its_width(self, values: list[float], width: int) -> None:
        assert len(sparkline(values, width)) == min(len(values), width)
