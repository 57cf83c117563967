from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core import locations
from tunedeck.core.config.compose import compose
from tunedeck.core.config.problems import ConfigErrors
from tunedeck.core.schema import TrainConfig

from .conftest import MINIMAL, Write


def value(path: Path, text: str) -> object:
    return compose(path, [f"value={text}"], schema=None).values["value"]


def refusal(path: Path, *overrides: str) -> ConfigErrors:
    with pytest.raises(ConfigErrors) as caught:
        compose(path, overrides, schema=TrainConfig)
    return caught.value


def test_omegaconfs_interpolations_resolve(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_NUMBER", "8")
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    path = write("c.yaml", "a: {b: 3, l: [x, '${a.b}']}\n")
    assert value(path, "${a.b}") == 3
    assert value(path, "n${a.b}") == "n3"
    assert value(path, "${a}") == {"b": 3, "l": ["x", 3]}
    assert value(path, "${oc.env:SOME_NUMBER}") == "8"
    assert value(path, "${oc.decode:${oc.env:SOME_NUMBER}}") == 8
    assert value(path, "${oc.env:NOT_SET_HERE,fallback}") == "fallback"
    assert value(path, "${oc.env:NOT_SET_HERE,null}") is None
    assert value(path, "${oc.env:NOT_SET_HERE,${a.b}}/x") == "3/x"
    assert value(path, "${oc.env:NOT_SET_HERE,}x") == "x"
    assert value(path, "${oc.select:nope.deeper,${a.b}}") == 3


def test_shared_keys_of_the_run_are_found(write: Write) -> None:
    path = write("c.yaml", MINIMAL + "wandb:\n  project: ${oc.select:run.wandb.project,null}\n")
    assert compose(path, schema=TrainConfig).values["wandb"]["project"] is None
    composed = compose(path, ["run.wandb.project=shared"], schema=TrainConfig)
    assert composed.values["wandb"]["project"] == "shared"


def test_a_shipped_asset_is_found_by_name(
    minimal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "assets" / "model").mkdir(parents=True)
    monkeypatch.setattr(locations, "assets_dir", lambda: tmp_path / "assets")
    key = "model.pretrained_model_name_or_path"
    composed = compose(minimal, [f"{key}=${{tunedeck.asset:model}}"], schema=TrainConfig)
    assert composed.values["model"]["pretrained_model_name_or_path"] == str(
        tmp_path / "assets" / "model"
    )
    assert "no asset 'other'" in str(refusal(minimal, f"{key}=${{tunedeck.asset:other}}"))


@pytest.mark.parametrize(
    ("text", "words", "fix"),
    [
        ("${oc.env:NOT_SET_HERE}", "variable NOT_SET_HERE is not set", "export NOT_SET_HERE=…"),
        ("${wandb.grup}", "no key 'wandb.grup'", "wandb.group"),
        ("${oc.evn:X}", "no resolver 'oc.evn'", "oc.env"),
        ("${wandb.name}", "leads back to itself", "Write the value out"),
        ("${wandb}", "leads back to itself", "Write the value out"),
        ("${oc.env:}", "wandb.name", "oc.env:NAME"),
        ("${oc.decode:'[1'}", "wandb.name", "oc.env:NAME"),
    ],
)
def test_what_cannot_be_resolved_is_told_with_place_and_remedy(
    write: Write, monkeypatch: pytest.MonkeyPatch, text: str, words: str, fix: str
) -> None:
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    path = write("c.yaml", MINIMAL + f'wandb:\n  group: g\n  name: "{text}"\n')
    error = refusal(path)
    assert words in error.message
    assert fix in error.fix
    assert str(error.place) == f"{path}:7:9"


def test_interpolations_in_a_circle_are_told(write: Write) -> None:
    path = write("c.yaml", MINIMAL + "wandb: {name: '${wandb.group}', group: '${wandb.name}'}\n")
    assert refusal(path).message.count("leads back to itself") == 2


def test_a_long_row_of_interpolations_is_refused_not_a_crash(write: Write) -> None:
    rows = "".join(f"v{number}: ${{v{number + 1}}}\n" for number in range(2000))
    with pytest.raises(ConfigErrors, match="too many others"):
        compose(write("c.yaml", rows + "v2000: 1\n"))


def test_secrets_stay_references(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary-value")
    monkeypatch.setenv("NAME_OF_IT", "HF_TOKEN")
    path = write(
        "c.yaml",
        MINIMAL
        + "run:\n  env:\n    env_vars:\n      HF_TOKEN: ${oc.env:HF_TOKEN}\n"
        + "      OTHER: Bearer ${oc.env:${oc.env:NAME_OF_IT}}\n"
        + "      COPY: ${run.env.env_vars.OTHER}\n",
    )
    composed = compose(path, schema=TrainConfig)
    assert composed.values["run"]["env"]["env_vars"] == {
        "HF_TOKEN": "${oc.env:HF_TOKEN}",
        "OTHER": "Bearer ${oc.env:HF_TOKEN}",
        "COPY": "Bearer ${oc.env:HF_TOKEN}",
    }
    assert "canary-value" not in repr(composed)


def test_a_secret_outside_the_profiles_keys_is_refused(
    minimal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-value")
    error = refusal(minimal, "wandb.name=x-${oc.env:WANDB_API_KEY}")
    assert "reads the secret WANDB_API_KEY" in error.message
    assert "canary-value" not in str(error) + error.fix
