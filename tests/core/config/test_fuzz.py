from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunedeck.core.config.compose import compose
from tunedeck.core.config.describe import describe
from tunedeck.core.config.overrides import parse_override
from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig

from .conftest import MINIMAL

FUZZ = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=150,
    deadline=None,
)
KEYS = [row.key for row in describe(TrainConfig)]
PIECES = st.sampled_from([": ", "\n", "\n  ", "- ", "\t", "\\", "é", "\x85", "<<: *x"]) | (
    st.sampled_from(list(":[]{},'\"#|>~1a"))
    | st.sampled_from(["&x", "*x", "!!int", "!t", "${", "oc.env:X", "???", "1e-4", "null", "on"])
    | st.sampled_from(
        [".inf", "0x1F", "0b_", "---", "...", "%YAML", "model", "defaults", "dataset"]
    )
)
YAMLISH = st.lists(PIECES, max_size=25).map("".join)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["lora", "none", "${optimizer.lr}", "${oc.env:HOME}", "${x", "???", "train"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["path", "weight", "dim", "_target_", "x"]), inner)
    ),
    max_leaves=5,
)


def survives(path: Path, overrides: list[str]) -> None:
    """Compose with and without a schema: a result that can be shown, or a mistake that is told."""
    for schema in (TrainConfig, None):
        try:
            composed = compose(path, overrides, schema=schema)
        except UsageError as error:
            assert str(error)
            str(error).encode()
        else:
            yaml.safe_dump(composed.values)


@FUZZ
@given(st.binary(max_size=60) | YAMLISH.map(str.encode))
def test_any_file_gives_a_config_or_a_usage_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    survives(path, [])


@FUZZ
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_of_any_key_gives_a_config_or_a_usage_error(
    tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL)
    child = tmp_path / "child.yaml"
    nested = value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    child.write_text("defaults: c\n" + yaml.safe_dump(nested))
    survives(child, [])


@FUZZ
@given(
    st.lists(
        st.text(max_size=20)
        | st.builds("{}={}".format, st.sampled_from(KEYS), YAMLISH)
        | st.builds("{}[{}].x={}".format, st.sampled_from(KEYS), st.integers(0, 3), SCALARS),
        max_size=3,
    )
)
def test_any_overrides_give_a_config_or_a_usage_error(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL)
    survives(path, texts)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_an_override_or_a_usage_error(text: str) -> None:
    try:
        parse_override(text)
    except UsageError as error:
        assert error.fix
