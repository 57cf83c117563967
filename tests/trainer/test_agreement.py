"""Processes of one run that were not started alike: found out, and told which and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import distributed as dist

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.mesh import MeshSizes
from tunedeck.trainer.agreement import check_same_config, check_same_content
from tunedeck.trainer.parallel.context import ALONE, DistributedContext

Configure = Callable[..., TrainConfig]
PAIR = DistributedContext(0, 2, 0, MeshSizes(1, 2, 1, 1, 1))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each process says, one call after the other: a check hears them all at its end."""
    said: list[Any] = []

    def gather(heard: list[Any], mine: Any) -> None:
        said.append(mine)
        heard[:] = said if len(said) == 2 else [mine, mine]

    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_gather_object", gather)
    return said


@pytest.mark.parametrize(
    ("first", "there", "words"),
    [
        ({"optimizer": {"lr": 1e-3}}, {"optimizer": {"lr": 1e-4}}, "lr is 0.0001 there and 0.001"),
        ({"rng": {"seed": 1}}, {"rng": {"seed": 2}}, "rng.seed is 2 there and 1 on"),
        ({"peft": None}, {"peft": {"dim": 4}}, "peft.* is .* there and null on"),
        ({"peft": {"dim": 4}}, {"peft": None}, "peft.* is null there and .* on"),
        ({}, {"distributed": {"tp_size": 2}}, "distributed.tp_size is 2 there and 1 on"),
        (
            {"sampling": {"prompts": ["a"]}},
            {"sampling": {"prompts": ["b" * 500]}},
            r'sampling.prompts is .{1,60} there and \["a"\]',
        ),
    ],
)
@pytest.mark.usefixtures("asked")
def test_another_config_is_told_by_its_first_key_and_both_values(
    first: dict[str, Any], there: dict[str, Any], words: str, configure: Configure
) -> None:
    check_same_config(configure(**first))
    with pytest.raises(UsageError, match=f"Process 1 was started with another config: .*{words}"):
        check_same_config(configure(**there))


def test_the_same_config_with_data_in_another_place_is_the_same(
    asked: list[Any], configure: Configure
) -> None:
    for place in ("/scratch/a.jsonl", "/scratch/b.jsonl"):
        check_same_config(configure(dataset={"path_or_dataset_id": place}))
    assert len(asked) == 2
    assert "optimizer.lr" in asked[0]


@pytest.mark.usefixtures("asked")
def test_a_secret_that_differs_is_not_shown(configure: Configure) -> None:
    secrets = ["hf_" + letter * 30 for letter in "ab"]
    check_same_config(configure(wandb={"name": secrets[0]}))
    with pytest.raises(UsageError, match=r"wandb.name is \*+ there and \*+ on") as caught:
        check_same_config(configure(wandb={"name": secrets[1]}))
    assert not any(secret in str(caught.value) for secret in secrets)


@pytest.mark.usefixtures("asked")
def test_other_content_is_told_by_the_key_that_names_it() -> None:
    check_same_content({"tokenizer.name": "1", "dataset.path_or_dataset_id": "2"}, PAIR)
    with pytest.raises(UsageError, match=r"Process 1 .* under dataset.path_or_dataset_id"):
        check_same_content({"tokenizer.name": "1", "dataset.path_or_dataset_id": "3"}, PAIR)


def test_a_single_process_asks_no_one(asked: list[Any]) -> None:
    check_same_content({"tokenizer.name": "1"}, ALONE)
    assert asked == []
