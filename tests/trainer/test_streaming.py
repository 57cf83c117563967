from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunedeck.core.chat import RowError, Source
from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.data import DatasetConfig
from tunedeck.trainer import sft
from tunedeck.trainer.data import streaming
from tunedeck.trainer.data.packing import OpenPacks
from tunedeck.trainer.data.raw_stream import RawStream
from tunedeck.trainer.data.rows import TokenRow
from tunedeck.trainer.data.streaming import RecentRows

from .helpers import losses, metric_lines, rows, write_rows
from .test_sft import interrupt_in_step, result_of, same_bits

Configure = Callable[..., TrainConfig]


def stream_of(
    *files: tuple[Path, float], shuffle: bool = True, seed: int = 0, buffer: int = 8
) -> RawStream:
    sources = [Source(str(file), (file,), weight) for file, weight in files]
    config = DatasetConfig(path_or_dataset_id="unused", streaming=True)
    return RawStream(sources, config, seed=seed, shuffle=shuffle, buffer=buffer)


def drawn(stream: RawStream, count: int) -> list[tuple[int, int]]:
    found = []
    for source, row in islice(stream, count):
        assert not isinstance(row, RowError)
        found.append((source, row.number))
    return found


def test_each_pass_over_a_source_holds_every_row_once(chat_file: Path) -> None:
    stream = stream_of((chat_file, 1.0))
    found = [number for _, number in drawn(stream, 72)]
    for at in (0, 24, 48):
        assert sorted(found[at : at + 24]) == list(range(1, 25))
    assert found[:24] != found[24:48]
    assert found[:24] != list(range(1, 25))
    assert found == [number for _, number in drawn(stream_of((chat_file, 1.0)), 72)]
    assert found != [number for _, number in drawn(stream_of((chat_file, 1.0), seed=1), 72)]
    assert [stream.epoch(n) for n in (0, 23, 24, 47, 48, 71)] == [0, 0, 1, 1, 2, 2]


def test_without_shuffling_rows_come_as_they_stand(chat_file: Path) -> None:
    found = drawn(stream_of((chat_file, 1.0), shuffle=False), 30)
    assert [number for _, number in found] == [*range(1, 25), *range(1, 7)]


def test_sources_have_their_share_after_every_row(chat_file: Path, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other.jsonl", rows(5, seed=1))
    found = drawn(stream_of((chat_file, 3.0), (other, 1.0)), 80)
    for count in range(1, 81):
        second = sum(source for source, _ in found[:count])
        assert abs(second - count / 4) <= 1
    assert Counter(number for source, number in found if source) == dict.fromkeys(range(1, 6), 4)


def test_a_source_without_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    with pytest.raises(UsageError, match=r"none\.jsonl' has no rows"):
        next(iter(stream_of((tmp_path / "none.jsonl", 1.0))))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.integers(1, 5))
def test_open_packs_take_rows_until_one_does_not_fit(lengths: list[int], count: int) -> None:
    packs = OpenPacks(count, 20)
    waiting = []
    for row, length in enumerate(lengths):
        if not packs.add(row, length):
            break
        waiting.append(row)
    found = packs.take()
    assert sorted(row for rows in found for row in rows) == waiting
    assert all(sum(lengths[row] for row in rows) <= 20 for rows in found)
    assert len(found) <= count
    if len(waiting) < len(lengths):
        assert len(found) == count
        assert all(sum(lengths[r] for r in rows) + lengths[len(waiting)] > 20 for rows in found)
    assert packs.take() == []


def test_rows_of_steps_long_ago_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_KEPT_STEPS", 2)
    kept = RecentRows()
    for number in range(5):
        kept.add(number, TokenRow(np.zeros(3, np.int32), np.ones(3, np.uint8)), f"f:{number}")
        kept.step([number])
    assert kept.place(4) == "f:4"
    assert kept.length(3) == 3
    with pytest.raises(KeyError):
        kept.place(2)


def streamed(**dataset: Any) -> dict[str, Any]:
    return {"dataset": {"streaming": True, **dataset}, "dataloader": {"shuffle": False}}


@pytest.mark.parametrize("packed", [{}, {"packed_sequence": {"packed_sequence_size": 128}}])
def test_a_streamed_run_resumes_at_the_next_row(
    packed: dict[str, Any],
    configure: Configure,
    tmp_path: Path,
    chat_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with chat_file.open("a") as file:
        file.write("{\n")
    whole, part = tmp_path / "whole", tmp_path / "part"
    for folder in (whole, part):
        folder.mkdir()
    plan = {"global_batch_size": 4, "local_batch_size": 2, "max_steps": 9, "num_epochs": None}
    tables = {
        **packed,
        "dataset": {"streaming": True},
        "step_scheduler": plan,
        "peft": {"dropout": 0.1},
    }
    assert sft.main(configure(**tables), whole) == 0
    said = capsys.readouterr().out
    assert f"{chat_file}:25: left out: The row is not valid JSON" in said
    uninterrupted = losses(said)
    assert len(uninterrupted) == 9
    with monkeypatch.context() as patch:
        interrupt_in_step(6, signal.SIGTERM, patch)
        assert sft.main(configure(**tables), part) == 75
    first = losses(capsys.readouterr().out)
    assert sft.main(configure(**tables, checkpoint={"restore_from": str(part)}), part) == 0
    assert first + losses(capsys.readouterr().out) == uninterrupted
    assert same_bits(part / "checkpoints/latest", whole / "checkpoints/latest")


@pytest.mark.slow
@pytest.mark.parametrize("packed", [{}, {"packed_sequence": {"packed_sequence_size": 128}}])
def test_workers_change_neither_the_order_nor_where_a_run_resumes(
    packed: dict[str, Any],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = {"global_batch_size": 4, "local_batch_size": 2, "max_steps": 9, "num_epochs": None}
    tables = {**packed, "dataset": {"streaming": True}, "step_scheduler": plan}
    workers = {"dataloader": {"num_workers": 2, "prefetch_factor": 3}}
    assert sft.main(configure(**tables), tmp_path) == 0
    expected = losses(capsys.readouterr().out)
    part = tmp_path / "part"
    part.mkdir()
    with monkeypatch.context() as patch:
        interrupt_in_step(6, signal.SIGTERM, patch)
        assert sft.main(configure(**tables, **workers), part) == 75
    first = losses(capsys.readouterr().out)
    restore = {"restore_from": str(part)}
    assert sft.main(configure(**tables, **workers, checkpoint=restore), part) == 0
    assert first + losses(capsys.readouterr().out) == expected


def test_a_row_that_may_not_be_cut_ends_a_run_whose_rows_are_made_ahead(
    configure: Configure, tmp_path: Path
) -> None:
    dataset = {"seq_length": 20, "truncation": "error"}
    tables = {**streamed(**dataset), "dataloader": {"shuffle": False, "num_workers": 1}}
    with pytest.raises(RowError, match="more than"):
        sft.main(configure(**tables, step_scheduler={"max_steps": 5}), tmp_path)


def test_streamed_rows_in_order_train_as_prepared_ones_do(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {"max_steps": 8}
    sft.main(configure(dataloader={"shuffle": False}, step_scheduler=plan), tmp_path)
    expected = metric_lines(capsys.readouterr().out)
    sft.main(configure(**streamed(), step_scheduler=plan), tmp_path)
    found = metric_lines(capsys.readouterr().out)
    assert [one["epoch"] for one in found] == ["0"] * 6 + ["1"] * 2
    assert [(one["loss"], one["epoch"]) for one in found] == [
        (one["loss"], one["epoch"]) for one in expected
    ]


def test_a_streamed_run_ends_with_its_epochs(configure: Configure, tmp_path: Path) -> None:
    plan = {"max_steps": 100, "num_epochs": 2}
    assert sft.main(configure(**streamed(), step_scheduler=plan), tmp_path) == 0
    assert result_of(tmp_path)["steps"] == 12


def test_a_row_that_may_not_be_cut_ends_a_streamed_run(
    configure: Configure, tmp_path: Path
) -> None:
    tables = streamed(seq_length=32, truncation="error")
    with pytest.raises(UsageError, match="tokens, more than"):
        sft.main(configure(**tables), tmp_path)


def test_sources_of_a_stream_have_losses_of_their_own(
    configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str], chat_file: Path
) -> None:
    other = write_rows(tmp_path / "other.jsonl", rows(5, seed=1))
    tables = streamed(path_or_dataset_id=[str(chat_file), str(other)])
    assert sft.main(configure(**tables), tmp_path) == 0
    for line in metric_lines(capsys.readouterr().out):
        between = sorted(float(line[key]) for key in ("loss/rows", "loss/other"))
        assert between[0] <= float(line["loss"]) <= between[1]


def test_data_of_which_no_row_can_be_trained_on_does_not_run_for_ever(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_FUTILE", 50)
    asked = {"messages": [{"role": "user", "content": "q"}]}
    bad = write_rows(tmp_path / "bad.jsonl", [asked] * 3)
    with pytest.raises(UsageError, match="None of 50 rows"):
        sft.main(configure(**streamed(path_or_dataset_id=str(bad))), tmp_path)
