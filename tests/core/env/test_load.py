from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunedeck.core.env.find import FoundFiles
from tunedeck.core.env.load import load_env_files, load_readable
from tunedeck.core.errors import UsageError

from .conftest import Load


def test_tables_are_profiles_but_for_the_reserved_ones(load: Load) -> None:
    files = load(
        """
        [wandb]
        project = "p"
        [cli]
        theme = "dark"
        [cache]
        git_dir = "/c"
        [artifacts]
        root = "/a"
        [gpu]
        executor = "local"
        """
    )
    assert list(files.profiles) == ["gpu", "local"]


def test_a_profile_local_is_always_there_and_a_file_may_define_its_own(load: Load) -> None:
    assert load("").profile("local").table == {
        "executor": "local",
        "nodes": 1,
        "nproc_per_node": 1,
    }
    own = load("[local]\ngpus_per_node = 2").profile("local")
    assert own.table == {"executor": "local", "gpus_per_node": 2}


def test_a_profile_that_two_files_define_is_an_error_that_names_both_places(
    write: Callable[..., Path],
) -> None:
    one = write('[a]\nexecutor = "local"\n[gpu]\nexecutor = "local"\n', "env.a.toml")
    two = write('\n[gpu]\nexecutor = "slurm"\n', "env.b.toml")
    with pytest.raises(UsageError, match="'gpu' is defined twice") as caught:
        load_env_files(FoundFiles((one, two), ""))
    assert f"{one}:3" in caught.value.message
    assert str(caught.value.place).startswith(f"{two}:2")


def test_reserved_tables_hold_for_the_profiles_of_their_own_file(
    write: Callable[..., Path],
) -> None:
    one = write('[wandb]\nproject = "one"\n[a]\nexecutor = "local"\n', "env.a.toml")
    two = write('[wandb]\nproject = "two"\n[b]\nexecutor = "local"\n', "env.b.toml")
    files = load_env_files(FoundFiles((one, two), ""))
    assert files.reserved("wandb", "a") == {"project": "one"}
    assert files.reserved("wandb", "b") == {"project": "two"}
    assert files.reserved("wandb", "local") == {}


@pytest.mark.parametrize("text", ["nodes = 2", "[[gpu]]\nnodes = 2"])
def test_what_is_in_no_table_is_an_error(load: Load, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(text)
    assert caught.value.place is not None
    assert caught.value.place.line == 1


def test_an_unknown_profile_is_an_error_with_the_nearest_name(load: Load) -> None:
    files = load('[slurm_sft]\nexecutor = "slurm"')
    with pytest.raises(UsageError, match="Did you mean 'slurm_sft'"):
        files.profile("slurm_stf")
    with pytest.raises(UsageError, match="reserved"):
        files.profile("wandb")


def test_a_secret_in_a_file_is_in_no_representation_of_it(load: Load) -> None:
    files = load('[gpu]\nexecutor = "local"\nenv_vars = { API_KEY = "canary" }')
    assert "canary" not in repr(files)
    assert "canary" not in repr(files.profile("gpu"))


def test_who_looks_gets_the_files_that_can_be_read_and_why_the_others_cannot(
    write: Callable[..., Path],
) -> None:
    broken = write("[a]\nnodes = = 1\n", "env.a.toml")
    one = write('[gpu]\nexecutor = "local"\n', "env.b.toml")
    again = write('[gpu]\nexecutor = "slurm"\n[c]\nexecutor = "local"\n', "env.c.toml")
    files, errors = load_readable(FoundFiles((broken, one, again), ""))
    assert list(files.profiles) == ["gpu", "local"]
    assert files.profile("gpu").table == {"executor": "local"}
    places = [error.place for error in errors if error.place]
    assert [(place.file, place.line) for place in places] == [(str(broken), 2), (str(again), 1)]
