from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.continuing import ROWS, TEMPLATE, changes, data_order

BASE: dict[str, Any] = {
    "model": {"pretrained_model_name_or_path": "m"},
    "step_scheduler": {"global_batch_size": 8, "local_batch_size": 2, "max_steps": 5},
}


def order(file: Path, **tables: dict[str, Any]) -> dict[str, Any]:
    values = {**BASE, "dataset": {"path_or_dataset_id": str(file)}}
    for name, table in tables.items():
        values[name] = {**values.get(name, {}), **table}
    return data_order(TrainConfig.model_validate(values))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"messages": []}\n' * 20000)
    return file


@pytest.mark.parametrize(
    ("tables", "key", "refused"),
    [
        (
            {"packed_sequence": {"packed_sequence_size": 64}},
            "packed_sequence.packed_sequence_size",
            True,
        ),
        ({"dataset": {"streaming": True}}, "dataset.streaming", True),
        ({"dataset": {"seq_length": 64}}, "dataset.seq_length", False),
        ({"dataset": {"split": "train[:5]"}}, "dataset.split", False),
        ({"dataset": {"mask": "all"}}, "dataset.mask", False),
        (
            {"tokenizer": {"chat_template_kwargs": {"enable_thinking": False}}},
            "tokenizer.chat_template_kwargs",
            False,
        ),
        ({"dataloader": {"shuffle": False}}, "dataloader.shuffle", False),
        ({"rng": {"seed": 7}}, "rng.seed", False),
        (
            {"step_scheduler": {"global_batch_size": 16}},
            "step_scheduler.global_batch_size",
            False,
        ),
    ],
)
def test_what_the_order_of_samples_depends_on_is_named_with_its_old_value(
    tables: dict[str, Any], key: str, refused: bool, rows: Path
) -> None:
    before, now = order(rows), order(rows, **tables)
    (change,) = changes(before, now)
    assert (change.key, change.refused, change.value) == (key, refused, before[key])
    assert key in change.fix
    # What is set back as it says is as it was.
    assert not list(changes(before, {**now, change.key: change.value}))


@pytest.mark.parametrize(
    "tables",
    [
        {"step_scheduler": {"max_steps": 50, "local_batch_size": 4, "ckpt_every_steps": 1}},
        {"optimizer": {"lr": 1e-2}},
        {"distributed": {"tp_size": 2}},
        {"dataloader": {"num_workers": 3}},
    ],
)
def test_a_run_may_be_longer_or_on_another_mesh(tables: dict[str, Any], rows: Path) -> None:
    assert not list(changes(order(rows), order(rows, **tables)))


def test_rows_are_known_by_what_they_are_and_not_by_their_place(rows: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(rows.read_bytes())
    assert not list(changes(order(rows), order(moved)))
    content = moved.read_bytes()
    for changed in (content + b"{}\n", b" " + content[1:], content[:-2] + b" \n"):
        moved.write_bytes(changed)
        assert [c.key for c in changes(order(rows), order(moved))] == [ROWS]
    # What cannot be looked at here is not judged.
    moved.unlink()
    assert not list(changes(order(rows), order(moved)))


def test_the_chat_template_is_known_by_its_text(rows: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    named = {"model": {"pretrained_model_name_or_path": str(model)}}
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    before = order(rows, **named)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    inline = {"tokenizer": {"chat_template": "{{ messages }}"}}
    for now in (order(rows, **named), order(rows, **named, **inline)):
        assert not list(changes(before, now))
    (model / "chat_template.jinja").write_text("{{ messages[0] }}")
    passthrough = {"tokenizer": {"chat_template": None}}
    for now in (order(rows, **named), order(rows, **named, **passthrough)):
        (change,) = changes(before, now)
        assert (change.key, change.refused) == (TEMPLATE, False)
    # What cannot be looked at here is not judged.
    (model / "chat_template.jinja").unlink()
    (model / "tokenizer_config.json").unlink()
    assert not list(changes(before, order(rows, **named)))


def test_rows_of_a_stream_are_counted_however_they_are_packed(rows: Path) -> None:
    stream = {"dataset": {"streaming": True}}
    packed = {"packed_sequence": {"packed_sequence_size": 64}}
    assert not list(changes(order(rows, **stream), order(rows, **stream, **packed)))


def test_a_checkpoint_that_says_nothing_of_its_data_is_not_judged(rows: Path) -> None:
    assert not list(changes({}, order(rows)))
