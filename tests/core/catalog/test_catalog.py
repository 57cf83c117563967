from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunedeck.core.catalog import Catalog, load_catalog
from tunedeck.core.errors import UsageError

WriteStep = Callable[..., Path]


@pytest.fixture
def catalog(own: Path, step_in: WriteStep) -> Catalog:
    (own / "types.toml").write_text("[data]\n[clean]\nis_a = ['data']\n[model]\n[adapter]\n")
    for name, takes, makes in (
        ("sft/automodel", "data", "model"),
        ("peft/automodel", "data", "adapter"),
        ("convert/merge_lora", "adapter", "model"),
        ("rl/nemo_rl/dpo", "model", "model"),
        ("data/clean", "data", "clean"),
    ):
        artifacts = f"[[consumes]]\ntype = '{takes}'\n[[produces]]\ntype = '{makes}'\n"
        body = f"tags = ['{name[:2]}']\n{artifacts}"
        step_in(own, name, body)
    return load_catalog()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("peft/automodel", "peft/automodel"),
        ("merge_lora", "convert/merge_lora"),
        ("dpo", "rl/nemo_rl/dpo"),
        ("nemo_rl/dpo", "rl/nemo_rl/dpo"),
    ],
)
def test_a_step_is_found_by_id_or_unambiguous_tail(
    catalog: Catalog, query: str, found: str
) -> None:
    assert catalog.find(query).id == found


def test_an_ambiguous_tail_names_the_candidates(catalog: Catalog) -> None:
    with pytest.raises(UsageError, match="peft/automodel, sft/automodel"):
        catalog.find("automodel")


@pytest.mark.parametrize(
    ("query", "suggested"),
    [
        ("peft/automodle", "'peft/automodel'"),
        ("merge-lora", "'convert/merge_lora'"),
        ("dpoo", "'rl/nemo_rl/dpo'"),
        ("lora", "'convert/merge_lora'"),
    ],
)
def test_a_mistyped_id_is_answered_with_the_nearest(
    catalog: Catalog, query: str, suggested: str
) -> None:
    with pytest.raises(UsageError) as caught:
        catalog.find(query)
    assert suggested in caught.value.message
    assert "tunedeck steps list" in caught.value.fix


@pytest.mark.parametrize("query", ["", "/", "zzzzzzzz", "../sft/automodel", "o_lora"])
def test_nonsense_is_refused_without_a_guess(catalog: Catalog, query: str) -> None:
    with pytest.raises(UsageError, match="There is no step"):
        catalog.find(query)


@pytest.mark.parametrize(
    ("conditions", "ids"),
    [
        (
            {},
            [
                "convert/merge_lora",
                "data/clean",
                "peft/automodel",
                "rl/nemo_rl/dpo",
                "sft/automodel",
            ],
        ),
        ({"category": "rl"}, ["rl/nemo_rl/dpo"]),
        ({"tag": "pe"}, ["peft/automodel"]),
        ({"consumes": "clean"}, ["data/clean", "peft/automodel", "sft/automodel"]),
        ({"consumes": "adapter"}, ["convert/merge_lora"]),
        ({"produces": "data"}, ["data/clean"]),
        ({"produces": "model", "consumes": "data"}, ["sft/automodel"]),
        ({"category": "rl", "tag": "pe"}, []),
    ],
)
def test_conditions_are_joined_and_types_count_by_is_a(
    catalog: Catalog, conditions: dict[str, str], ids: list[str]
) -> None:
    assert [step.id for step in catalog.select(**conditions)] == ids


@pytest.mark.parametrize(
    ("condition", "value", "suggested"),
    [
        ("category", "pft", "'peft'"),
        ("tag", "PE", "'pe'"),
        ("consumes", "adaptor", "'adapter'"),
        ("produces", "modl", "'model'"),
    ],
)
def test_an_unknown_word_in_a_condition_is_answered_with_the_nearest(
    catalog: Catalog, condition: str, value: str, suggested: str
) -> None:
    with pytest.raises(UsageError) as caught:
        catalog.select(**{condition: value})
    assert suggested in caught.value.message
