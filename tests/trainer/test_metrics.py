from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft
from tunedeck.trainer.lines import line
from tunedeck.trainer.reporting import metrics
from tunedeck.trainer.reporting.metrics import Meter
from tunedeck.trainer.update.pending import Settled, Taken
from tunedeck.trainer.update.step import StepResult

from .helpers import metric_lines

Configure = Callable[..., TrainConfig]


def taken(tokens: int, supervised: int, places: int, padding: int, flops: int = 0) -> Taken:
    nothing = torch.zeros(())
    result = StepResult(nothing, nothing, tokens, supervised, 4, places, padding, flops)
    return Taken(1, 0, {}, [], result, (0, 0))


def test_the_line_tells_of_all_steps_since_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now)
    monkeypatch.setattr(metrics, "peak_flops", lambda _device: 1e6)
    meter = Meter(torch.device("cpu"), ranks=2)
    steps = [taken(100, 10, 120, 20, 60_000), taken(300, 30, 280, 0, 140_000)]
    for seconds, step in zip((1.0, 2.0), steps, strict=True):
        meter.start()
        now += seconds
        meter.add(step.result)
        now += 50.0  # a validation, which is no training time
    meter.settle([Settled(steps[0], 2.0, 0.5), Settled(steps[1], 4.0, 0.7)], waited=1.0)
    values = meter.flush(step=2, epoch=0, rate=1e-4)
    assert values["loss"] == pytest.approx((2.0 * 10 + 4.0 * 30) / 40)
    assert values["grad_norm"] == 0.7
    assert values["tokens"] == 400
    assert values["tokens_per_s"] == pytest.approx(400 / 4)
    assert values["supervised_tokens_per_s"] == pytest.approx(40 / 4)
    assert values["padding"] == pytest.approx(20 / 400)
    assert values["mfu"] == pytest.approx(200_000 / 4 / (1e6 * 2))
    assert meter.empty


def test_a_peak_that_is_not_known_gives_no_share_of_it() -> None:
    meter = Meter(torch.device("cpu"))
    step = taken(1, 1, 1, 0, 1)
    meter.start()
    meter.add(step.result)
    meter.settle([Settled(step, 1.0, 1.0)], waited=0.0)
    assert "mfu" not in meter.flush(step=1, epoch=0, rate=1.0)


def test_seven_digits_and_quoted_text() -> None:
    values: dict[str, float | int | str] = {"step": 12, "loss": 2.31454789, "prompt": 'say "x"'}
    assert line(values) == 'step=12 loss=2.314548 prompt="say \\"x\\""'


def test_padding_is_what_was_computed_in_vain(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sft.main(configure(model={"attn_implementation": "sdpa"}), tmp_path)
    padded = [float(values["padding"]) for values in metric_lines(capsys.readouterr().out)]
    assert all(0 <= share < 0.5 for share in padded)
    assert max(padded) > 0
    alone = {"attn_implementation": "sdpa"}
    sft.main(configure(model=alone, step_scheduler={"local_batch_size": 1}), tmp_path)
    shares = [float(values["padding"]) for values in metric_lines(capsys.readouterr().out)]
    assert shares == [0.0] * 4
