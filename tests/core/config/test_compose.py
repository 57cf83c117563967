from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tunedeck.core.config.compose import ComposedConfig, compose
from tunedeck.core.config.describe import describe
from tunedeck.core.config.problems import ConfigErrors
from tunedeck.core.config.validate import WORDS_OF_OTHERS
from tunedeck.core.schema import MergeConfig, TrainConfig

from .conftest import MINIMAL, Write


def mistakes(path: Path, *overrides: str) -> list[tuple[str | None, str]]:
    with pytest.raises(ConfigErrors) as caught:
        compose(path, overrides, schema=TrainConfig)
    return [(finding.key, finding.message) for finding in caught.value.findings]


def origin(composed: ComposedConfig, key: str) -> str:
    return str(composed.origins[key].origin)


def test_values_hold_the_defaults_and_every_leaf_has_an_origin(minimal: Path) -> None:
    composed = compose(minimal, schema=TrainConfig)
    assert composed.values["optimizer"]["lr"] == 1e-5
    assert composed.values == composed.model.model_dump(mode="json") if composed.model else False
    assert origin(composed, "optimizer.lr") == "default"
    assert origin(composed, "dataset.path_or_dataset_id") == f"config default ({minimal}:4:23)"
    assert composed.raw == yaml.safe_load(MINIMAL)


def test_each_value_tells_what_it_overrode(write: Write, minimal: Path) -> None:
    tiny = write("tiny.yaml", "defaults: default\ndataset:\n  path_or_dataset_id: tiny.jsonl\n")
    composed = compose(tiny, ["dataset.path_or_dataset_id=mine.jsonl"], schema=TrainConfig)
    sourced = composed.origins["dataset.path_or_dataset_id"]
    assert (sourced.value, str(sourced.origin)) == (
        "mine.jsonl",
        "command line (dataset.path_or_dataset_id=mine.jsonl)",
    )
    assert [(value, str(origin)) for value, origin in sourced.overrode] == [
        ("tiny.jsonl", f"config tiny ({tiny}:3:23)"),
        ("train.jsonl", f"config default ({minimal}:4:23)"),
    ]


def test_a_variable_of_the_environment_is_the_text_that_was_written(write: Write) -> None:
    text = "run: {env: {env_vars: {A: 010, B: 1.50, C: yes, F: 1e3, D: ~, E: 'x'}, nodes: 010}}\n"
    variables = {"A": "010", "B": "1.50", "C": "yes", "F": "1e3", "D": None, "E": "x"}
    assert compose(write("c.yaml", text)).values["run"]["env"] == {
        "env_vars": variables, "nodes": 8,
    }  # fmt: skip


def test_a_walltime_is_the_text_that_was_written(write: Write) -> None:
    text = "a: &a {time: 12:00:00, other: '8:0:0'}\nb: [1:30, 1:30.5, 90]\nc: {<<: *a}\n"
    times = {"time": "12:00:00", "other": "8:0:0"}
    assert compose(write("c.yaml", text)).values == {
        "a": times, "b": ["1:30", "1:30.5", 90], "c": times,
    }  # fmt: skip


def test_translated_values_come_from_the_key_that_was_written(write: Write) -> None:
    path = write(
        "c.yaml",
        MINIMAL + "seed: 5\noptimizer:\n  _target_: torch.optim.Adam\n"
        "checkpoint:\n  is_async: true\n",
    )
    composed = compose(path, schema=TrainConfig)
    assert composed.values["rng"]["seed"] == 5
    assert origin(composed, "rng.seed").endswith("c.yaml:5:7)")
    assert origin(composed, "optimizer.name").endswith("c.yaml:7:13)")
    assert origin(composed, "checkpoint.async_save").endswith("c.yaml:9:13)")


@pytest.mark.parametrize("table", ["", "peft: null\n", "peft: lora\n", "peft: {dim: 4}\n"])
def test_lora_by_one_word_works_over_any_config(write: Write, table: str) -> None:
    path = write("c.yaml", MINIMAL + table)
    composed = compose(path, ["peft=lora"], schema=TrainConfig)
    assert composed.values["peft"]["dim"] == (4 if "4" in table else 8)
    assert compose(path, ["peft=lora", "peft.dim=16"], schema=TrainConfig).values["peft"] == {
        **composed.values["peft"],
        "dim": 16,
    }
    assert compose(path, ["peft=null"], schema=TrainConfig).values["peft"] is None


def test_a_table_below_a_word_keeps_the_words_meaning(write: Write) -> None:
    write("base.yaml", MINIMAL + "peft: lora\n")
    child = write("child.yaml", "defaults: base\npeft:\n  alpha: 16\n")
    assert compose(child, schema=TrainConfig).values["peft"]["alpha"] == 16


def test_defaults_of_lora_come_from_the_override_that_asked_for_it(minimal: Path) -> None:
    composed = compose(minimal, ["peft=lora"], schema=TrainConfig)
    assert origin(composed, "peft.dim") == "command line (peft=lora)"


def test_an_unknown_key_is_told_with_place_and_nearest(write: Write) -> None:
    path = write("c.yaml", MINIMAL + "optimizer:\n  weight_decy: 0.1\n")
    with pytest.raises(ConfigErrors) as caught:
        compose(path, schema=TrainConfig)
    [finding] = caught.value.findings
    assert str(finding.place) == f"{path}:6:3"
    assert finding.key == "optimizer.weight_decy"
    assert finding.fix is not None
    assert "weight_decay" in finding.fix.words
    assert finding.fix.edit is not None
    assert (finding.fix.edit.op, finding.fix.edit.value) == ("rename", "weight_decay")
    assert str(caught.value).startswith(f"{path}:6:3: There is no key")


@pytest.mark.parametrize(
    ("override", "ours"),
    [
        ("peft.r=8", "dim"),
        ("peft.lora_alpha=8", "alpha"),
        ("optimizer.learning_rate=1", "lr"),
        ("learning_rate=1", "optimizer.lr"),
        ("per_device_train_batch_size=1", "step_scheduler.local_batch_size"),
    ],
)
def test_a_key_of_another_trainer_is_told_as_ours(minimal: Path, override: str, ours: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        compose(minimal, ["peft=lora", override], schema=TrainConfig)
    [finding] = caught.value.findings
    assert finding.fix is not None
    assert finding.fix.words == f"Did you mean '{ours}'?"


def test_every_word_of_another_trainer_leads_to_a_key() -> None:
    known = {info.key.rpartition(".")[2] for info in describe(TrainConfig)}
    assert set(WORDS_OF_OTHERS.values()) <= known
    assert not set(WORDS_OF_OTHERS) & known


def test_a_known_key_in_the_wrong_table_is_told_where_it_belongs(minimal: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        compose(minimal, ["learning.lr=1"], schema=TrainConfig)
    assert "learning.lr=1" in str(caught.value)
    with pytest.raises(ConfigErrors) as caught:
        compose(minimal, ["max_steps=1"], schema=TrainConfig)
    assert caught.value.fix == "Did you mean 'step_scheduler.max_steps'?"


def test_a_wrong_value_is_told_with_its_kind_and_its_override(write: Write) -> None:
    path = write("c.yaml", MINIMAL + "lr_scheduler:\n  lr_decay_style: cosin\n")
    assert mistakes(path, "optimizer.lr=fast") == [
        (
            "optimizer.lr",
            "optimizer.lr = 'fast': expected number > 0 (override optimizer.lr=fast).",
        ),
        (
            "lr_scheduler.lr_decay_style",
            "lr_scheduler.lr_decay_style = 'cosin': expected one of constant, linear, cosine, wsd.",
        ),
    ]


def test_all_mistakes_of_a_config_are_told_at_once(write: Write) -> None:
    path = write("c.yaml", "dataset:\n  path_or_dataset_id: [{path: a, weight: -1}]\nzzz: 1\n")
    found = mistakes(path, "bad", "step_scheduler.max_steps=0", "wandb.name=${nope}")
    assert [key for key, _ in found] == [
        None,
        "wandb.name",
        "model",
        "dataset.path_or_dataset_id[0].weight",
        "step_scheduler.max_steps",
        "zzz",
    ]


def test_a_mistake_in_a_list_has_the_place_of_its_item(write: Write) -> None:
    text = MINIMAL.replace("train.jsonl", "\n    - path: a\n    - path: b\n      weight: none\n")
    path = write("c.yaml", text)
    with pytest.raises(ConfigErrors) as caught:
        compose(path, schema=TrainConfig)
    assert str(caught.value.place) == f"{path}:7:15"


def test_what_is_not_set_is_told_with_how_to_set_it(write: Write) -> None:
    path = write("c.yaml", "lora_checkpoint: null\n")
    with pytest.raises(ConfigErrors, match="lora_checkpoint is not set") as caught:
        compose(path, schema=MergeConfig)
    assert caught.value.fix == "Set lora_checkpoint=…"
    open_ = write("d.yaml", MINIMAL.replace("org/model", "???"))
    assert [key for key, _ in mistakes(open_)] == ["model.pretrained_model_name_or_path"]


def test_another_format_of_rows_is_refused_once_not_key_by_key(write: Write) -> None:
    path = write(
        "c.yaml",
        "model: {pretrained_model_name_or_path: m}\n"
        "dataset:\n  _target_: a.squad.make_squad_dataset\n  dataset_name: squad\n",
    )
    assert [key for key, _ in mistakes(path)] == ["dataset._target_"]


def test_a_config_without_a_schema_is_taken_as_it_is(write: Write) -> None:
    path = write(
        "c.yaml", "anything: {goes: [1, 2]}\nhere: ${auto_mount:x}/${oc.env:NOT_SET_HERE}\n"
    )
    composed = compose(path, ["more=1"])
    assert composed.values == {
        "anything": {"goes": [1, 2]},
        "here": "${auto_mount:x}/${oc.env:NOT_SET_HERE}",
        "more": 1,
    }
    assert composed.model is None


def test_remarks_stand_at_their_key(write: Write) -> None:
    path = write(
        "c.yaml",
        MINIMAL + "step_scheduler:\n  max_steps: 5\nlr_scheduler:\n  lr_warmup_steps: 9\n",
    )
    [remark] = compose(path, schema=TrainConfig).remarks
    assert remark.severity == "warning"
    assert str(remark.place) == f"{path}:7:1"


def test_an_empty_file_is_an_empty_config(write: Write) -> None:
    assert compose(write("c.yaml", "# nothing yet\n")).values == {}


def test_a_composed_config_composes_to_itself(write: Write) -> None:
    path = write("c.yaml", MINIMAL + "peft: lora\nwandb: {project: p}\n")
    first = compose(path, ["optimizer.lr=3e-4"], schema=TrainConfig)
    again = write("again.yaml", yaml.safe_dump(first.values))
    assert compose(again, schema=TrainConfig).values == first.values


def test_anchors_and_merge_keys_keep_their_places(write: Write) -> None:
    path = write("c.yaml", "base: &b\n  x: 1\n  y: 2\nuse:\n  <<: *b\n  y: 3\n")
    composed = compose(path)
    assert composed.values["use"] == {"x": 1, "y": 3}
    assert origin(composed, "use.x").endswith("c.yaml:2:6)")
    assert origin(composed, "use.y").endswith("c.yaml:6:6)")


_SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["x", "yes", "1e3"])
_KEYS = st.sampled_from("abc")
_TREES = st.recursive(
    _SCALARS, lambda inner: st.dictionaries(_KEYS, inner, max_size=3), max_leaves=8
)
_CONFIGS = st.dictionaries(_KEYS, _TREES | st.lists(_SCALARS, max_size=2), max_size=3)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
@given(parent=_CONFIGS, child=_CONFIGS, value=_TREES)
def test_merging_is_omegaconfs(
    tmp_path: Path, parent: dict[str, Any], child: dict[str, Any], value: Any
) -> None:
    (tmp_path / "parent.yaml").write_text(yaml.safe_dump(parent))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(child))
    (tmp_path / "child.yaml").write_text("defaults: parent\n" + yaml.safe_dump(child) * bool(child))
    override = "a=" + yaml.safe_dump(value, default_flow_style=True).replace("...\n", "").strip()
    try:
        oracle = OmegaConf.merge(
            OmegaConf.load(tmp_path / "parent.yaml"), OmegaConf.load(tmp_path / "own.yaml")
        )
        merged = OmegaConf.to_container(oracle)
        oracle.merge_with_dotlist([override])
    except TypeError:  # a list and a table in one place: there it is an error, here the later wins
        assume(False)
    assert compose(tmp_path / "child.yaml").values == merged
    composed = compose(tmp_path / "child.yaml", [override])
    assert composed.values == OmegaConf.to_container(oracle)
