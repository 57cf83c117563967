from __future__ import annotations

from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from tunedeck.core.env.models import MODELS, BaseProfile, keys_of

PAGE = Path(__file__).parents[3] / "docs" / "env-files.md"
COMMON = set(BaseProfile.model_fields) - {"executor"}


def table(keys: dict[str, FieldInfo]) -> str:
    """The keys as the page has them: all spellings of one in a row, what it is for beside them."""
    names: dict[str, list[str]] = {}
    for name, info in keys.items():
        names.setdefault(info.description or "", []).append(f"`{name}`")
    rows = [f"| {', '.join(known)} | {text} |" for text, known in names.items()]
    return "\n".join(["| Key | |", "|---|---|", *rows])


def common_keys() -> dict[str, FieldInfo]:
    described = {BaseProfile.model_fields[name].description for name in COMMON}
    return {key: info for key, info in keys_of("local").items() if info.description in described}


def own_keys(executor: str) -> dict[str, FieldInfo]:
    shared = {info.description for info in common_keys().values()}
    return {
        key: info
        for key, info in keys_of(executor).items()
        if info.description not in shared and key != "executor"
    }


def test_the_page_has_the_common_keys_as_the_models_have_them() -> None:
    expected = table(common_keys())
    assert expected in PAGE.read_text(), f"docs/env-files.md should have:\n{expected}"


@pytest.mark.parametrize("executor", MODELS)
def test_the_page_has_each_executors_keys_as_its_model_has_them(executor: str) -> None:
    expected = f"### {executor}\n{table(own_keys(executor))}\n"
    assert expected in PAGE.read_text(), f"docs/env-files.md should have:\n{expected}"


def test_every_key_has_a_description() -> None:
    for executor in MODELS:
        for key, info in keys_of(executor).items():
            assert info.description, f"{executor}: {key}"


def test_descriptions_are_one_per_key() -> None:
    for executor in MODELS:
        described: dict[str, FieldInfo] = {}
        for info in keys_of(executor).values():
            assert described.setdefault(info.description or "", info) is info
