from __future__ import annotations

import shlex

import pytest

from tests.core.conftest import PlanMaker
from tunedeck.core.catalog import Catalog, load_catalog
from tunedeck.core.choices import (
    as_text,
    command_of,
    form_of,
    look_command,
    selection_of,
    steps_for,
    values_for,
    with_override,
    with_value,
    without_value,
)
from tunedeck.core.config.overrides import parse_override
from tunedeck.core.errors import UsageError
from tunedeck.core.resolve import resolve
from tunedeck.core.runs.record import RunRecord
from tunedeck.core.selection import Selection

SHIPPED_STEPS = resolve(Selection("peft/automodel", "tiny")).config["step_scheduler"]["max_steps"]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(())


def _tiny(*overrides: str) -> Selection:
    return Selection("peft/automodel", config="tiny", overrides=overrides)


def test_a_form_tells_values_origins_and_what_is_changed(catalog: Catalog) -> None:
    form = form_of(_tiny("optimizer.lr=0.5"), catalog)
    row = form.row("optimizer.lr")
    assert row is not None
    assert (row.value, row.changed, row.common) == (0.5, True, True)
    assert row.sourced is not None
    assert row.sourced.origin.layer == "command line"
    untouched = form.row("step_scheduler.max_steps")
    assert untouched is not None
    assert (untouched.value, untouched.changed) == (SHIPPED_STEPS, False)


def test_a_field_offers_its_choices_or_the_models_there_are_each_once(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = form_of(_tiny(), catalog)
    rows = {row.info.key: row.info for row in form.rows}
    known = catalog.find("peft/automodel").manifest.models[0].name
    monkeypatch.setattr("tunedeck.core.models.cached_models", lambda: [known, "a/b"])
    models, free = values_for(rows["model.pretrained_model_name_or_path"], _tiny(), catalog)
    assert free
    names = [name for name, _ in models]
    assert len(names) == len(set(names))
    about = dict(models)
    assert about["a/b"] == "in this machine's cache"
    assert about[known].startswith("in this machine's cache. ")
    values, free = values_for(rows["peft.use_dora"], _tiny(), catalog)
    assert (values, free) == ([("false", ""), ("true", "")], False)
    assert values_for(rows["optimizer.lr"], _tiny(), catalog) == ([], True)


def test_the_command_that_looks_at_the_data_is_that_of_the_selection() -> None:
    words = look_command(_tiny("dataset.seq_length=64"), validation=True)
    assert shlex.join(words) == (
        "tunedeck data look peft/automodel -c tiny --validation dataset.seq_length=64"
    )


def test_what_is_wrong_stands_at_its_field_and_the_rest_is_still_seen(catalog: Catalog) -> None:
    form = form_of(_tiny("peft.dim=-1", "no.such=1"), catalog)
    row = form.row("peft.dim")
    assert row is not None
    assert row.finding is not None
    assert row.finding.severity == "error"
    assert any("no" in (finding.key or "") for finding in form.findings)
    other = form.row("step_scheduler.max_steps")
    assert other is not None
    assert other.value == SHIPPED_STEPS


@pytest.mark.parametrize("text", ["010", "on", "1e3", "null", "plain words", "a: b", "[open", ""])
def test_a_text_field_takes_what_is_typed_as_it_is(catalog: Catalog, text: str) -> None:
    row = form_of(_tiny(), catalog).row("dataset.path_or_dataset_id")
    assert row is not None
    info = row.info
    (override,) = with_value(_tiny(), info, text).overrides
    expected = None if info.nullable and text in ("", "null") else text
    assert parse_override(override).value == expected


def test_a_second_value_for_a_key_takes_the_place_of_the_first() -> None:
    chosen = with_override(with_override(_tiny("a.b=1"), "c=2"), "a.b=3")
    assert chosen.overrides == ("c=2", "a.b=3")
    assert without_value(chosen, "a.b").overrides == ("c=2",)


def test_a_malformed_override_changes_nothing() -> None:
    with pytest.raises(UsageError):
        with_override(_tiny(), "no value")


def test_the_command_has_every_word_and_survives_the_shell() -> None:
    chosen = Selection(
        "peft/automodel",
        config="tiny",
        overrides=("sampling.prompts=[it's a 'test']",),
        profile="cluster",
        name="my run",
        from_run="rabc",
    )
    words = command_of(chosen, "--dry-run")
    assert shlex.split(shlex.join(words)) == words
    assert words[:6] == ["tunedeck", "steps", "run", "peft/automodel", "-c", "tiny"]
    assert words[6:8] == ["-r", "cluster"]
    assert words[-1] == "sampling.prompts=[it's a 'test']"


def test_only_steps_that_take_the_product_are_offered(catalog: Catalog) -> None:
    assert [step.id for step in steps_for(catalog, "peft/automodel")] == ["convert/merge_lora"]
    assert "env/env_toml" not in {step.id for step in steps_for(catalog)}


def test_a_run_gives_back_what_it_was_made_of(make_plan: PlanMaker) -> None:
    chosen = _tiny("optimizer.lr=0.5")
    plan = make_plan(selection=chosen.to_json(), overrides=chosen.overrides)
    assert selection_of(RunRecord.of(plan, forced=False)) == chosen


def test_values_read_as_one_types_them() -> None:
    assert [as_text(value) for value in (True, None, 1e-4, "x", [1, "a"])] == [
        "true",
        "null",
        "0.0001",
        "x",
        '[1, "a"]',
    ]
