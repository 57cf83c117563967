from __future__ import annotations

from tunedeck.core.config.paths import local_path_fields, set_path
from tunedeck.core.schema import MergeConfig, TrainConfig


def test_values_that_may_name_local_files_are_found_with_their_direction() -> None:
    values = {
        "model": {"pretrained_model_name_or_path": "./model", "revision": "x"},
        "tokenizer": {"name": "tok", "chat_template": "a.jinja"},
        "dataset": {"path_or_dataset_id": [{"path": "a.jsonl", "weight": 1}, {"path": "b"}]},
        "validation_dataset": {"path_or_dataset_id": "v.jsonl", "split": "train"},
        "checkpoint": {"checkpoint_dir": "out", "restore_from": "in"},
    }
    assert local_path_fields(TrainConfig, values) == [
        ("model.pretrained_model_name_or_path", "./model", "input"),
        ("tokenizer.name", "tok", "input"),
        ("tokenizer.chat_template", "a.jinja", "input"),
        ("dataset.path_or_dataset_id[0].path", "a.jsonl", "input"),
        ("dataset.path_or_dataset_id[1].path", "b", "input"),
        ("validation_dataset.path_or_dataset_id", "v.jsonl", "input"),
        ("checkpoint.checkpoint_dir", "out", "output"),
        ("checkpoint.restore_from", "in", "input"),
    ]


def test_an_inline_template_and_null_are_no_paths() -> None:
    values = {"tokenizer": {"chat_template": "{{ x }}", "name": None}, "validation_dataset": None}
    assert local_path_fields(TrainConfig, values) == []


def test_the_paths_of_a_merge_are_found() -> None:
    values = {"lora_checkpoint": "a", "base_hf_path": "b", "output_hf_path": "c"}
    assert [way for _, _, way in local_path_fields(MergeConfig, values)] == [
        "input",
        "input",
        "output",
    ]


def test_nothing_is_known_of_the_paths_of_other_catalogs() -> None:
    assert local_path_fields(None, {"model": {"path": "x"}}) == []


def test_every_key_that_is_found_can_be_set() -> None:
    values = {"dataset": {"path_or_dataset_id": [{"path": "a"}, {"path": "b"}]}}
    for key, value, _ in local_path_fields(TrainConfig, values):
        set_path(values, key, f"/new/{value}")
    assert values == {"dataset": {"path_or_dataset_id": [{"path": "/new/a"}, {"path": "/new/b"}]}}
