"""Reading the config that a run executes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tunedeck.core.errors import Place, UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer.config_file import as_table, load_config

VALUES = {
    "model": {"pretrained_model_name_or_path": "some/model"},
    "dataset": {"path_or_dataset_id": "data.jsonl"},
    "optimizer": {"lr": 1e-3},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(VALUES))
    return path


def test_words_after_the_config_come_on_top_of_it(file: Path) -> None:
    config = load_config("sft", file, ["optimizer.lr=5e-4", "--step_scheduler.max_steps=3"])
    assert config.optimizer.lr == 5e-4
    assert config.step_scheduler.max_steps == 3
    assert load_config("sft", file).optimizer.lr == 1e-3


def test_a_word_that_is_no_key_of_the_config_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match=r"no key 'optimizer\.lrr'") as refused:
        load_config("sft", file, ["optimizer.lrr=1"])
    assert refused.value.fix == "Did you mean 'lr'?"


def test_all_mistakes_of_a_config_are_named_with_their_values(file: Path) -> None:
    with pytest.raises(UsageError) as refused:
        load_config("sft", file, ["peft.dim=0", "nonsense=1"])
    assert "peft.dim = 0: expected integer ≥ 1." in str(refused.value)
    assert "There is no key 'nonsense'." in str(refused.value)


def test_what_does_not_go_together_has_its_remedy(file: Path) -> None:
    with pytest.raises(UsageError, match="early stopping needs validation") as refused:
        load_config("sft", file, ["early_stopping={}"])
    assert "step_scheduler.val_every_steps" in refused.value.fix


def test_values_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(UsageError, match="not a mapping"):
        as_table(TrainConfig, [])  # type: ignore[arg-type]  # as a caller may that has no types


def test_a_word_without_a_value_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="has no value"):
        load_config("sft", file, ["optimizer.lr"])


def test_what_is_no_readable_file_is_said_with_its_path(tmp_path: Path) -> None:
    garbled = tmp_path / "garbled.yaml"
    garbled.write_bytes(b"a: \xff\xfe")
    for path in (tmp_path, garbled, tmp_path / "none.yaml"):
        with pytest.raises(UsageError) as refused:
            load_config("sft", path)
        assert refused.value.place == Place(str(path))
