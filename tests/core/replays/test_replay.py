from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunedeck.core import locations
from tunedeck.core.errors import NotFoundError, UsageError
from tunedeck.core.replays import lock as replay_lock
from tunedeck.core.replays.files import SUFFIX, repository_folder
from tunedeck.core.replays.lock import Lock, changes_between, holding
from tunedeck.core.replays.replay import (
    changes_since,
    delete_replay,
    frozen,
    list_replays,
    load_replay,
    save_replay,
)
from tunedeck.core.resolve import resolve
from tunedeck.core.selection import Selection

ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
CONFIG = """\
recipe: TrainFinetuneRecipeForNextTokenPrediction
model: {pretrained_model_name_or_path: org/model}
dataset: {path_or_dataset_id: rows.jsonl, seq_length: 64}
step_scheduler: {global_batch_size: 8, local_batch_size: 4, max_steps: 5}
optimizer: {lr: 0.001}
"""
ENV = """\
[ours]
executor = "local"
env_vars = { A = "1" }
"""

Chooser = Callable[..., Selection]


@pytest.fixture
def work(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a config, data and an env file of its own, as the working folder."""
    folder = tmp_path / "repo"
    (folder / ".git").mkdir(parents=True)
    (folder / "mine.yaml").write_text(CONFIG)
    (folder / "rows.jsonl").write_text(ROW)
    (folder / "env.toml").write_text(ENV)
    for name in ("TUNEDECK_ENV_FILE", "NEMOTRON_ENV_FILE", "TUNEDECK_STEPS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def choose(work: Path) -> Chooser:
    def chosen(**changes: Any) -> Selection:
        facts: dict[str, Any] = {
            "step": "sft/automodel",
            "config": "./mine.yaml",
            "profile": "ours",
            "cwd": work,
        }
        return Selection(**{**facts, **changes})

    return chosen


def saved(selection: Selection, name: str = "mine", **options: Any) -> Path:
    return save_replay(resolve(selection).to_json(), name, **options)


def changed(name: str = "mine") -> dict[str, tuple[Any, Any]]:
    replay = load_replay(name)
    changes = changes_since(replay, resolve(replay.selection()))
    return {change.key: (change.locked, change.now) for change in changes}


def test_a_replay_resolves_to_the_plan_it_was_saved_from(choose: Chooser) -> None:
    selection = choose(overrides=("optimizer.lr=2e-3", "run.env.nodes=1"), name="nightly")
    plan = resolve(selection)
    save_replay(plan.to_json(), "mine", description='Say "hi" ✓')
    replay = load_replay("mine")
    again = resolve(replay.selection())
    assert (again.digest, again.name) == (plan.digest, "nightly")
    assert replay.selection() == selection
    assert replay.ingredients.description == 'Say "hi" ✓'
    assert changes_since(replay, again) == []


def test_runs_of_a_replay_are_called_by_its_name_unless_it_says_another(choose: Chooser) -> None:
    saved(choose())
    saved(choose(name="nightly"), "other")
    assert resolve(load_replay("mine").selection()).name == "mine"
    assert resolve(load_replay("other").selection()).name == "nightly"


def test_the_file_is_toml_that_a_person_can_edit(choose: Chooser) -> None:
    file = saved(choose(overrides=("optimizer.lr=2e-3",)))
    assert file == locations.replays_dir() / f"mine{SUFFIX}"
    document = tomllib.loads(file.read_text())
    assert document["overrides"] == ["optimizer.lr=2e-3"]
    assert document["lock"]["config"]["optimizer"]["lr"] == 0.002
    assert document["lock"]["config"]["dataset"]["path_or_dataset_id"].startswith("sha256:")

    text = file.read_text().replace("optimizer.lr=2e-3", "optimizer.lr=5e-3")
    file.write_text(text)
    assert changed() == {"config.optimizer.lr": (0.002, 0.005)}


def test_what_changed_is_told_by_value_and_not_by_file(choose: Chooser, work: Path) -> None:
    saved(choose())
    (work / "mine.yaml").write_text("# a comment\n" + CONFIG)
    assert changed() == {}

    (work / "mine.yaml").write_text(CONFIG.replace("0.001", "0.004").replace("64", "32"))
    (work / "rows.jsonl").write_text(ROW * 2)
    (work / "env.toml").write_text(ENV.replace('A = "1"', 'A = "2", B = "3"'))
    changes = changed()
    data = changes.pop("config.dataset.path_or_dataset_id")
    assert changes == {
        "config.optimizer.lr": (0.001, 0.004),
        "config.dataset.seq_length": (64, 32),
        "profile.env_vars.A": ("1", "2"),
        "profile.env_vars.B": (None, "3"),
    }
    assert data[0] != data[1]


def test_a_changed_step_or_code_is_a_change(choose: Chooser, work: Path) -> None:
    catalog = work / "steps"
    shutil.copytree(locations.shipped_steps_dir() / "sft", catalog / "sft")
    saved(choose(catalog=(catalog,)))
    assert changed() == {}
    manifest = catalog / "sft" / "automodel" / "step.toml"
    manifest.write_text(manifest.read_text() + "\n# other\n")
    assert list(changed()) == ["step"]

    replay = load_replay("mine")
    plan = resolve(replay.selection())
    keys = [change.key for change in changes_since(replay, replace(plan, code="sha256:other"))]
    assert keys == ["step", "code"]


def test_another_profile_asked_for_is_no_change(choose: Chooser) -> None:
    saved(choose())
    replay = load_replay("mine")
    plan = resolve(replace(replay.selection(), profile="local"))
    assert changes_since(replay, plan) == []


def test_frozen_puts_back_every_value_that_changed(choose: Chooser, work: Path) -> None:
    plan = resolve(choose())
    save_replay(plan.to_json(), "mine")
    (work / "mine.yaml").write_text(
        CONFIG.replace("0.001", "0.004").replace("max_steps: 5", "num_epochs: 2") + "peft: lora\n"
    )
    (work / "env.toml").write_text(ENV.replace('A = "1"', 'A = "2", B = "3"'))
    replay = load_replay("mine")
    selection = replay.selection()
    changes = changes_since(replay, resolve(selection))
    held = frozen(replay, selection, changes)
    again = resolve(held)
    assert changes_since(replay, again) == []
    assert (again.config, again.launch) == (plan.config, plan.launch)
    assert again.env["A"] == "1"
    assert "B" not in again.env
    assert "peft=null" in held.overrides
    assert "optimizer.lr=0.001" in held.overrides


def test_frozen_refuses_what_no_value_can_put_back(choose: Chooser, work: Path) -> None:
    saved(choose())
    (work / "rows.jsonl").write_text(ROW * 3)
    replay = load_replay("mine")
    selection = replay.selection()
    with pytest.raises(UsageError, match="path_or_dataset_id"):
        frozen(replay, selection, changes_since(replay, resolve(selection)))


def test_frozen_needs_a_lock(work: Path) -> None:
    replay = load_replay("tiny-lora")
    with pytest.raises(UsageError, match="no lock"):
        frozen(replay, replay.selection(), [])


def test_a_repositorys_replay_moves_with_it(
    choose: Chooser, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(choose(), folder=repository_folder(work))
    assert file == work / "profiles" / f"mine{SUFFIX}"
    assert str(work) not in file.read_text()

    moved = work.parent / "elsewhere"
    shutil.move(work, moved)
    below = moved / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert load_replay("mine").source == "repository"
    assert changed() == {}


def test_a_replay_of_ones_own_works_from_everywhere(
    choose: Chooser, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(choose())
    monkeypatch.chdir(tmp_path)
    assert changed() == {}
    shutil.rmtree(work)
    with pytest.raises(UsageError, match="not there") as caught:
        load_replay("mine").selection()
    assert caught.value.place is not None
    assert caught.value.place.line is not None


def test_the_nearest_of_a_name_wins(choose: Chooser, work: Path) -> None:
    assert load_replay("tiny-lora").source == "shipped"
    own = saved(choose(), "tiny-lora")
    assert load_replay("tiny-lora").file == own
    shared = saved(choose(), "tiny-lora", folder=repository_folder(work))
    assert load_replay("tiny-lora").file == shared
    assert [one.file for one in list_replays() if one.name == "tiny-lora"] == [shared]
    for expected in (shared, own):
        assert delete_replay("tiny-lora") == expected
    with pytest.raises(UsageError, match="ships"):
        delete_replay("tiny-lora")


def test_a_taken_name_is_refused_unless_forced(choose: Chooser) -> None:
    file = saved(choose())
    before = file.read_text()
    with pytest.raises(UsageError, match="already"):
        saved(choose(overrides=("optimizer.lr=9e-3",)))
    assert file.read_text() == before
    saved(choose(overrides=("optimizer.lr=9e-3",)), force=True)
    assert load_replay("mine").ingredients.overrides == ["optimizer.lr=9e-3"]


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "a b", "x" * 65, "a\n", "é"])
def test_names_are_safe_as_file_names(name: str, choose: Chooser) -> None:
    with pytest.raises(UsageError, match="name"):
        saved(choose(), name)


def test_an_unknown_name_gets_the_nearest(work: Path) -> None:
    for find in (load_replay, delete_replay):
        with pytest.raises(NotFoundError, match="Did you mean 'tiny-lora'"):
            find("tiny-lra")


def test_no_secret_gets_into_a_replay(
    choose: Chooser, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "hf_" + "Canary4711" * 4
    monkeypatch.setenv("HF_TOKEN", canary)
    (work / "env.toml").write_text(
        '[ours]\nexecutor = "local"\nsecrets = ["HF_TOKEN"]\n'
        'env_vars = { MY_TOKEN = "${oc.env:HF_TOKEN}" }\n'
    )
    text = saved(choose()).read_text()
    assert canary not in text
    assert tomllib.loads(text)["lock"]["secrets"] == ["HF_TOKEN", "MY_TOKEN"]

    plan = {**resolve(choose()).to_json(), "overrides": [f"wandb.name={canary}"]}
    with pytest.raises(UsageError) as caught:
        save_replay(plan, "leaky")
    assert canary not in str(caught.value) + caught.value.fix
    assert not (locations.replays_dir() / f"leaky{SUFFIX}").exists()


@pytest.mark.parametrize(
    ("content", "says", "line"),
    [
        (b"step = \n", "TOML", 1),
        (b"\xff", "UTF-8", 1),
        (b'step = "a/b"\nconfg = "tiny"\n', "config", 2),
        (b'step = "a/b"\noverrides = "lr=1"\n', "overrides", 2),
        (b'config = "tiny"\n', "step", None),
        (b'stpe = "a/b"\n', "Did you mean 'step'", 1),
        (b'step = "a/b"\n[lock]\ntunedeck = 1\nplan = ""\nstep = ""\ncode = ""\n', "tunedeck", 3),
        (b'step = "a/b"\n[lock]\nplan = ""\n', "lock", 2),
        (b"a = [" * 500, "TOML", None),
        (b'step = "a/b"\nstep = "c/d"\n', "twice", 2),
    ],
)
def test_a_broken_file_is_refused_with_its_place_and_still_listed(
    content: bytes, says: str, line: int | None, work: Path
) -> None:
    file = locations.replays_dir() / f"broken{SUFFIX}"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_replay("broken")
    assert says in caught.value.message
    assert caught.value.place is not None
    assert caught.value.place.file == str(file)
    if line is not None:
        assert caught.value.place.line == line

    listed = {one.name: one for one in list_replays()}
    assert listed["broken"].problem is not None
    assert listed["tiny-lora"].problem is None
    assert delete_replay("broken") == file


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_no_content_of_a_file_escapes_as_anything_but_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "hostile" / "profiles"
    folder.mkdir(parents=True, exist_ok=True)
    data = (
        content
        if isinstance(content, bytes)
        else f'step = "a/b"\n{content}'.encode("utf-8", "surrogatepass")
    )
    (folder / f"hostile{SUFFIX}").write_bytes(data)
    with chdir(folder.parent):
        try:
            load_replay("hostile")
        except UsageError as error:
            assert error.place is not None


_LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2)
_TREES = st.recursive(
    _LEAVES | st.lists(_LEAVES.filter(lambda leaf: leaf is not None), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)
_CONFIGS = st.dictionaries(st.sampled_from(["x", "y", "z"]), _TREES, max_size=3)


@settings(max_examples=300, deadline=None)
@given(_CONFIGS, _CONFIGS)
def test_the_overrides_that_hold_a_lock_undo_every_change(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    from tunedeck.core.config.layers import from_value, overlay, plain
    from tunedeck.core.config.overrides import apply, parse_override
    from tunedeck.core.origins import Origin

    def lock(config: dict[str, Any]) -> Lock:
        clean = replay_lock._portable(config, "/nowhere")
        return Lock(tunedeck="", plan="", step="", code="", config=clean)

    tree: Any = {}
    for key, value in after.items():
        tree = overlay(tree, from_value((key,), value, Origin("test")))
    for text in holding(changes_between(lock(before), lock(after)), lock(before)):
        tree = apply(tree, parse_override(text))
    left = changes_between(lock(before), lock(plain(tree)))
    assert [change for change in left if change.locked not in ({}, None)] == []


def test_the_shipped_examples_resolve(work: Path) -> None:
    shipped = [one for one in list_replays() if one.source == "shipped"]
    assert [one.name for one in shipped] == ["tiny-lora", "tiny-sft"]
    for one in shipped:
        assert one.replay is not None
        assert resolve(one.replay.selection()).config_name == "tiny"
