from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tunedeck.core.config.compose import compose
from tunedeck.core.config.overrides import is_plain, parse_override, text_override
from tunedeck.core.errors import UsageError

from .conftest import Write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=010", 8),
        ("a=on", True),
        ("a=1e-4", 1e-4),
        ("a=", None),
        ("a=null", None),
        ("a=~", None),
        ("a='010'", "010"),
        ("a=2024-01-01", "2024-01-01"),
        ("a=12:00:00", "12:00:00"),
        ("a=8:0:0", "8:0:0"),
        ("a=[1, two]", [1, "two"]),
        ("a={b: 1}", {"b": 1}),
        ("a=train[:64]", "train[:64]"),
        ("a=x=y", "x=y"),
        ("a=${b.c}", "${b.c}"),
    ],
)
def test_values_are_typed_as_omegaconf_types_them(text: str, value: Any) -> None:
    override = parse_override(text)
    assert (override.path, repr(override.value)) == (("a",), repr(value))


@pytest.mark.parametrize("text", ["010", "1.50", "yes", "1e3", "12:30"])
def test_a_variable_of_the_environment_is_the_text_that_was_typed(text: str) -> None:
    assert parse_override(f"run.env.env_vars.A={text}").value == text
    assert parse_override("env_vars.A=").value is None


@pytest.mark.parametrize("text", ["plain", "010", "on", "null", "", "a: b", '"', "[", "é", "12:30"])
def test_a_text_is_put_in_quotes_where_it_would_be_read_as_something_else(text: str) -> None:
    override = text_override("a", text)
    assert parse_override(override).value == text
    assert (override == f"a={text}") == (text in ("plain", "é", "12:30"))


@given(st.text(max_size=30))
def test_any_value_is_read_as_omegaconf_reads_it_or_refused(text: str) -> None:
    def oracle() -> Any:
        made = OmegaConf.to_container(OmegaConf.from_dotlist([f"a={text}"]), resolve=False)
        assert isinstance(made, dict)
        return made["a"]

    try:
        value = parse_override(f"a={text}").value
    except UsageError:
        try:
            assert not is_plain(oracle()) or "!" in text
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, LookupError):
            return
    else:
        assert repr(value) == repr(oracle())


@pytest.mark.parametrize(
    ("text", "words", "fix"),
    [
        ("optimizer.lr", "has no value", "key=value"),
        ("=1", "has no key", "key=value"),
        ("~peft", "Hydra", "peft=null"),
        ("~peft=lora", "Hydra", "peft=null"),
        ("+a=1", "Hydra", "without the '+'"),
        ("++a=1", "Hydra", "without the '+'"),
        ("a..b=1", "malformed", "dots"),
        ("[0]=1", "malformed", "brackets"),
        ("a b=1", "malformed", "dots"),
        ("a=[1", "cannot be read", "quotes"),
        ("a={{ x }}", "cannot be read", "quotes"),
        ("a=${", "cannot be read", "quotes"),
        ("a={1: 2}", "not plain", "text"),
        (f"a={2**70}", "not plain", "64 bits"),
        ("a=!!binary aGk=", "the tag !!binary", "quotes"),
        ("a=!!int", "the tag !!int", "quotes"),
        ("a=0x_", "cannot be read", "quotes"),
        ("a=" + "[" * 90 + "]" * 90, "cannot be read", "quotes"),
        (".".join("a" * 60) + "=1", "more than", "dots"),
        ("a=\udcff", "UTF-8", "UTF-8"),
    ],
)
def test_malformed_overrides_are_refused_with_the_remedy(text: str, words: str, fix: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_override(text)
    assert fix in caught.value.fix


def test_a_secret_in_an_override_is_masked_wherever_the_override_is_named(
    write: Write,
) -> None:
    path = write("c.yaml", "a: 1\n")
    composed = compose(path, ["run.env.env_vars.HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz0123"])
    assert "abcdefgh" not in str(composed.origins["run.env.env_vars.HF_TOKEN"].origin)
    with pytest.raises(UsageError) as caught:
        compose(path, ['API_KEY="topsecretvalue'])
    assert "topsecret" not in str(caught.value) + caught.value.fix


def test_later_overrides_win_and_tables_merge(write: Write) -> None:
    path = write("c.yaml", "a: {b: 1, c: 2}\n")
    composed = compose(path, ["a.b=3", "a={d: 4}", "a.b=5", "new.key=6"])
    assert composed.values == {"a": {"b": 5, "c": 2, "d": 4}, "new": {"key": 6}}


def test_a_value_can_be_set_below_null(write: Write) -> None:
    assert compose(write("c.yaml", "a: null\n"), ["a.b=1"]).values == {"a": {"b": 1}}


def test_items_of_a_list_are_named_by_index(write: Write) -> None:
    path = write("c.yaml", "a:\n  - {path: x, weight: 1}\n  - {path: y}\n")
    composed = compose(path, ["a[0].weight=3", "a.1.path=z"])
    assert composed.values == {"a": [{"path": "x", "weight": 3}, {"path": "z"}]}
    assert composed.origins["a"].origin.layer == "command line"


@pytest.mark.parametrize("text", ["a[5]=1", "a.x=1", "a[0].b.c[1]=1", "n[0]=1", "z[0]=1"])
def test_an_index_that_leads_nowhere_is_refused(write: Write, text: str) -> None:
    path = write("c.yaml", "a: [{b: 1}]\nn: 3\n")
    with pytest.raises(UsageError, match="list"):
        compose(path, [text])


def test_overrides_do_not_change_the_files_they_are_laid_over(minimal: Path) -> None:
    before = minimal.read_bytes()
    compose(minimal, ["model.revision=x"])
    assert minimal.read_bytes() == before
