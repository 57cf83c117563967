from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from tunedeck.trainer.data.batches import Layout
from tunedeck.trainer.data.order import DataOrder, StepSampler
from tunedeck.trainer.data.rows import TokenRow


def steps(order: DataOrder, *, start: int = 0, stop: int, batch: int) -> list[list[int]]:
    return list(StepSampler(order, start=start, stop=stop, batch=batch))


def test_an_epoch_holds_every_row_once_in_an_order_of_its_own() -> None:
    order = DataOrder((20,), None, seed=1, shuffle=True)
    first, second = order.epoch(0).tolist(), order.epoch(1).tolist()
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert first == DataOrder((20,), None, seed=1, shuffle=True).epoch(0).tolist()
    assert first != DataOrder((20,), None, seed=2, shuffle=True).epoch(0).tolist()


def test_without_shuffling_rows_come_as_they_stand() -> None:
    order = DataOrder((5,), None, seed=1, shuffle=False)
    assert steps(order, stop=10, batch=4) == [[0, 1, 2, 3], [4, 0, 1, 2], [3, 4]]


@pytest.mark.parametrize("start", [0, 3, 10, 23, 24])
def test_a_resumed_sampler_yields_the_samples_that_follow(start: int) -> None:
    order = DataOrder((10,), None, seed=5, shuffle=True)
    whole = [row for step in steps(order, stop=25, batch=3) for row in step]
    rest = [row for step in steps(order, start=start, stop=25, batch=4) for row in step]
    assert rest == whole[start:]


def test_the_number_of_steps_is_known_beforehand() -> None:
    sampler = StepSampler(DataOrder((10,), None, 0, True), start=4, stop=20, batch=3)
    assert len(sampler) == len(list(sampler)) == 6


def test_a_blend_draws_from_each_source_by_its_weight() -> None:
    order = DataOrder((90, 10), (1.0, 3.0), seed=0, shuffle=True)
    drawn = torch.cat([order.epoch(number) for number in range(4)])
    second = int((drawn >= 90).sum())
    assert len(drawn) == 400
    assert second == 300
    times = Counter(row for row in drawn.tolist() if row >= 90)
    assert set(times.values()) == {30}
    firsts = [row for row in drawn.tolist() if row < 90]
    assert sorted(firsts[:90]) == list(range(90))


def test_what_the_weights_of_a_blend_come_to_is_known_beforehand() -> None:
    order = DataOrder((90, 10), (1.0, 3.0), seed=0, shuffle=True)
    assert order.drawn == [25, 75]
    assert DataOrder((90, 10), (1.0, 1e-4), seed=0, shuffle=True).drawn == [100, 0]
    assert DataOrder((90, 10), None, seed=0, shuffle=True).drawn == [90, 10]


def test_the_sources_of_a_blend_are_spread_evenly() -> None:
    order = DataOrder((50, 50), (1.0, 1.0), seed=0, shuffle=True)
    sources = [int(row) // 50 for row in islice(order.epoch(0).tolist(), 100)]
    assert all(sum(sources[at : at + 10]) in (4, 5, 6) for at in range(0, 100, 10))


def token_rows() -> list[TokenRow]:
    """Rows of 9, 2 and 6 tokens; of the last one, only the first four predict anything."""
    marks = ([0, 0, 1, 0, 1, 1, 0, 0, 1], [0, 1], [0, 1, 0, 0, 1, 0])
    return [
        TokenRow(
            np.arange(10 * n, 10 * n + len(m), dtype=np.int32), np.array(m, dtype=np.uint8), n % 2
        )
        for n, m in enumerate(marks)
    ]


@pytest.mark.parametrize("multiple", [1, 8, 16])
def test_rows_in_one_line_keep_their_bounds_and_what_fills_it_up_is_apart(multiple: int) -> None:
    batch = Layout(7, in_line=True, sources=2, multiple=multiple).batch(token_rows(), (4, 5, 6), 1)
    filling = -13 % multiple
    assert batch.input_ids.tolist() == [[*range(8), 10, *range(20, 24), *[7] * filling]]
    assert batch.padding == filling
    assert batch.position_ids is not None
    assert batch.cu_seqlens is not None
    assert batch.position_ids.tolist() == [[*range(8), 0, *range(4), *range(filling)]]
    assert batch.cu_seqlens.tolist() == [0, 8, 9, 13, *([13 + filling] if filling else [])]
    assert batch.positions.tolist() == [1, 3, 4, 7, 8, 9, 12]
    assert batch.targets.tolist() == [2, 4, 5, 8, 11, 21, 24]
    assert batch.sources is not None
    assert batch.sources.tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert (batch.tokens, batch.samples, batch.rows) == (17, 1, (4, 5, 6))


def test_rows_on_lines_of_their_own_are_padded_at_the_right() -> None:
    batch = Layout(7).batch(token_rows(), (4, 5, 6), 3)
    assert batch.input_ids.tolist() == [
        [*range(8)],
        [10, *[7] * 7],
        [*range(20, 24), *[7] * 4],
    ]
    assert batch.padding == 11
    assert batch.targets.tolist() == [2, 4, 5, 8, 11, 21, 24]
    assert batch.positions.tolist() == [1, 3, 4, 7, 8, 16, 19]
    assert batch.cu_seqlens is batch.position_ids is batch.sources is None


def test_a_gpu_fetches_whatever_it_is_sent_from_pinned_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned: list[torch.Tensor] = []
    fetched: list[tuple[torch.Tensor, torch.device, bool]] = []

    def pin(values: torch.Tensor) -> torch.Tensor:
        pinned.append(values.clone())
        return pinned[-1]

    def fetch(
        values: torch.Tensor, device: torch.device, *, non_blocking: bool = False
    ) -> torch.Tensor:
        fetched.append((values, device, non_blocking))
        return values

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "to", fetch)
    gpu = torch.device("cuda", 1)
    batch = Layout(7, in_line=True).batch(token_rows(), (4, 5, 6), 3)
    assert batch.to(torch.device("cpu")) is batch and not pinned
    moved = batch.to(gpu)
    assert len(fetched) == 5
    assert all(x is y for (x, _, _), y in zip(fetched, pinned, strict=True))
    assert {(device, unwaited) for _, device, unwaited in fetched} == {(gpu, True)}
    assert moved.input_ids.tolist() == batch.input_ids.tolist()
