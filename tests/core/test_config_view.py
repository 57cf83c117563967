from __future__ import annotations

from dataclasses import replace

import yaml

from tunedeck.core.catalog import load_catalog
from tunedeck.core.choices import form_of
from tunedeck.core.config_view import yaml_view
from tunedeck.core.selection import Selection

TINY = Selection("peft/automodel", config="tiny")


def test_changed_lines_stand_below_what_they_replace_and_the_rest_is_the_config() -> None:
    catalog = load_catalog()
    chosen = replace(TINY, overrides=("optimizer.lr=0.5", "peft.dim=3"))
    form = form_of(chosen, catalog)
    view = yaml_view(form, chosen, catalog)
    assert [line.text.strip() for line in view if line.mark == "+"] == ["lr: 0.5", "dim: 3"]
    assert len([line for line in view if line.mark == "-"]) == 2
    now = "\n".join(line.text for line in view if line.mark != "-")
    before = "\n".join(line.text for line in view if line.mark != "+")
    assert yaml.safe_load(now) == form.values
    assert yaml.safe_load(before) == form_of(TINY, catalog).values


def test_an_unchanged_config_has_no_marks() -> None:
    catalog = load_catalog()
    assert {line.mark for line in yaml_view(form_of(TINY, catalog), TINY, catalog)} == {" "}
