from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core.env.resolve import resolve_profile
from tunedeck.core.errors import Place, UsageError
from tunedeck.core.origins import Origin, Sourced

from .conftest import Load


def layer(name: str, **values: object) -> dict[str, Sourced]:
    origin = Origin(name, Place("config.yaml", 3))
    return {key.replace("__", "."): Sourced(value, origin) for key, value in values.items()}


BASE = """
[base]
executor = "slurm"
nodes = 1
gpus_per_node = 8
mounts = ["/a:/a", "/b:/b"]
env_vars = { A = "profile", B = "profile" }
[kid]
extends = "base"
time = "01:00:00"
"""


def test_later_layers_win_over_earlier_ones(load: Load) -> None:
    profile = resolve_profile(
        load(BASE),
        "kid",
        step_defaults=layer("step x", nodes=9, time="9:00", cpus_per_task=9),
        run_env=layer("config tiny", nodes=2, env_vars__B="config", env_vars__C="config"),
        command_line=layer("command line", nodes=4, env_vars__C="typed"),
    )
    assert profile.values["nodes"] == 4
    assert profile.values["time"] == "01:00:00"
    assert profile.values["cpus_per_task"] == 9
    assert profile.env_vars == {"A": "profile", "B": "config", "C": "typed"}
    nodes = profile.origins["nodes"]
    assert nodes.origin.layer == "command line"
    assert [origin.layer for _, origin in nodes.overrode] == [
        "config tiny",
        "profile base",
        "step x",
    ]


def test_mounts_of_profile_and_config_join_and_those_typed_replace(load: Load) -> None:
    run_env = layer("config tiny", mounts=["/b:/b", "/c:/c"])
    joined = resolve_profile(load(BASE), "kid", run_env=run_env)
    assert joined.values["mounts"] == ["/a:/a", "/b:/b", "/c:/c"]
    typed = layer("command line", mounts=["/d:/d"])
    replaced = resolve_profile(load(BASE), "kid", run_env=run_env, command_line=typed)
    assert replaced.values["mounts"] == ["/d:/d"]


def test_the_built_in_local_profile_resolves_without_any_file(load: Load) -> None:
    profile = resolve_profile(load(""), "local")
    assert (profile.name, profile.executor) == ("local", "local")
    assert profile.values == {"executor": "local", "nodes": 1, "nproc_per_node": 1}
    assert profile.origins["nodes"].origin.layer == "profile local"


def test_environment_variables_become_text_as_it_stands_in_the_file(load: Load) -> None:
    text = '[a]\nexecutor = "local"\nenv_vars = { N = 2, T = true, F = false, X = 0.5, S = "" }'
    assert resolve_profile(load(text), "a").env_vars == {
        "N": "2",
        "T": "true",
        "F": "false",
        "X": "0.5",
        "S": "",
    }


def test_the_wandb_table_comes_along_resolved_and_without_its_key(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM", "us")
    text = """
    [wandb]
    project = "p"
    entity = "${oc.env:TEAM}"
    api_key = "canary-in-clear"
    [a]
    executor = "local"
    """
    assert resolve_profile(load(text), "a").wandb == {"project": "p", "entity": "us"}


def test_a_missing_variable_is_an_error_with_place_and_remedy(load: Load) -> None:
    text = '[a]\nexecutor = "slurm"\nhost = "${oc.env:NO_SUCH_HOST}"'
    with pytest.raises(UsageError, match="NO_SUCH_HOST") as caught:
        resolve_profile(load(text), "a")
    assert str(caught.value.place).endswith("env.toml:3:1")
    assert "export NO_SUCH_HOST=" in caught.value.fix


def test_a_circle_of_keys_is_an_error_with_place(load: Load) -> None:
    text = '[a]\nexecutor = "slurm"\nhost = "${user}"\nuser = "${host}"'
    with pytest.raises(UsageError, match="host → user → host") as caught:
        resolve_profile(load(text), "a")
    assert caught.value.place is not None
    assert caught.value.place.line == 3


def test_a_profile_without_executor_cannot_be_used(load: Load) -> None:
    with pytest.raises(UsageError, match="executor") as caught:
        resolve_profile(load("[a]\nnodes = 2"), "a")
    assert caught.value.fix
    with pytest.raises(UsageError, match="gone"):
        resolve_profile(load(""), "gone")


def test_resolving_does_not_need_the_files_to_be_there_any_more(load: Load, tmp_path: Path) -> None:
    files = load(BASE)
    (tmp_path / "env.toml").unlink()
    assert resolve_profile(files, "kid").origins["time"].origin.place.line == 10
