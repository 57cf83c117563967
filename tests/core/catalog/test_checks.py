from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.catalog import Step, check_choices, check_min_gpus, check_required, load_catalog

WriteStep = Callable[..., Path]

BODY = """
[[consumes]]
type = "data"
key = "dataset.path"
example = "data/train.jsonl"
[[consumes]]
type = "adapter"
key = "adapter"
required = false
[[consumes]]
type = "model"
[[parameters]]
name = "peft"
choices = ["lora", "null"]
[[parameters]]
name = "table.level"
choices = [1, 2, 2.5, true]
[[parameters]]
name = "free"
[[models]]
name = "Org/Large"
min_gpus = 8
[[models]]
name = "Org/Small"
min_gpus = 1
[[models]]
name = "Org/Tiny"
"""


@pytest.fixture
def step(own: Path, step_in: WriteStep) -> Step:
    step_in(own, "sft/one", BODY)
    return load_catalog().find("sft/one")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"dataset": None},
        {"dataset": "text"},
        {"dataset": {}},
        {"dataset": {"path": None}},
        {"dataset": {"path": ""}},
        {"dataset": {"path": "???"}},
        {"dataset": {"path": []}},
    ],
)
def test_a_required_input_without_a_value_is_an_error_with_an_example(
    step: Step, config: dict[str, Any]
) -> None:
    (finding,) = check_required(step, config)
    assert finding.severity == "error"
    assert finding.key == "dataset.path"
    assert finding.fix is not None
    assert "dataset.path=data/train.jsonl" in finding.fix.words


@pytest.mark.parametrize("value", ["x.jsonl", ["a", "b"], [{"path": "a", "weight": 1}]])
def test_a_required_input_with_a_value_passes(step: Step, value: Any) -> None:
    assert check_required(step, {"dataset": {"path": value}}) == []


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"free": "anything"},
        {"peft": "lora"},
        {"peft": None},
        {"peft": "null"},
        {"peft": {"dim": 8}},
        {"table": {"level": 2.5}},
        {"table": {"level": True}},
        {"table": {"level": [1, 2]}},
    ],
)
def test_declared_choices_pass(step: Step, config: dict[str, Any]) -> None:
    assert check_choices(step, config) == []


@pytest.mark.parametrize(
    ("config", "value", "nearest"),
    [
        ({"peft": "lore"}, "lore", "lora"),
        ({"table": {"level": 3}}, "3", None),
        ({"table": {"level": [1, 7]}}, "7", None),
        ({"peft": False}, "false", None),
    ],
)
def test_any_other_value_is_an_error_with_the_nearest_choice(
    step: Step, config: dict[str, Any], value: str, nearest: str | None
) -> None:
    (finding,) = check_choices(step, config)
    assert f"'{value}'" in finding.message
    assert finding.fix is not None
    assert (finding.fix.edit.value if finding.fix.edit else None) == nearest


@pytest.mark.parametrize(("gpus", "errors"), [(0, 1), (7, 1), (8, 0), (16, 0)])
def test_fewer_gpus_than_the_model_needs_are_an_error(step: Step, gpus: int, errors: int) -> None:
    assert len(check_min_gpus(step, "org/large", gpus)) == errors


def test_the_remedy_names_the_gpus_and_the_models_that_would_fit(step: Step) -> None:
    (finding,) = check_min_gpus(step, "Org/Large", 1)
    assert finding.fix is not None
    assert "8 GPUs" in finding.fix.words
    assert "Org/Small, Org/Tiny" in finding.fix.words


def test_a_model_that_the_step_does_not_know_needs_nothing(step: Step) -> None:
    assert check_min_gpus(step, "./my-model", 0) == []
    assert check_min_gpus(step, "Org/Tiny", 0) == []
