from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tunedeck.core.schema import SCHEMAS, InspectConfig, MergeConfig, TrainConfig, schema_for

Values = dict[str, Any]


def config(**tables: Any) -> TrainConfig:
    base: Values = {
        "model": {"pretrained_model_name_or_path": "org/model"},
        "dataset": {"path_or_dataset_id": "train.jsonl"},
    }
    return TrainConfig.model_validate({**base, **tables})


def errors(**tables: Any) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        config(**tables)
    return [
        (".".join(map(str, error["loc"])), error["msg"])
        for error in caught.value.errors(include_url=False)
    ]


def test_a_model_and_a_dataset_are_all_a_config_must_name() -> None:
    made = config()
    assert made.step_scheduler.num_epochs == 1
    assert made.peft is None
    assert made.wandb.mode == "disabled"
    assert [key for key, _ in errors(model={}, dataset={})] == [
        "model",
        "dataset.path_or_dataset_id",
    ]


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"peft": "lora"},
        {"peft": {"target_modules": "*_proj", "use_dora": True}},
        {"lr_scheduler": [{"lr_decay_style": "constant"}, {}, {"milestones": [10]}]},
        {"dataset": {"path_or_dataset_id": [{"path": "a", "weight": 2}, "b"]}},
        {"model": {"config": {"model_type": "llama", "hidden_size": 64}}},
        {"wandb": {"project": "p"}, "seed": 7, "clip_grad_norm": {"max_norm": 0.5}},
        {"distributed": {"activation_checkpointing": "selective", "dp_size": "none"}},
    ],
)
def test_what_a_config_writes_reads_back_as_the_same_config(tables: Values) -> None:
    made = config(**tables)
    written = made.model_dump(mode="json")
    assert TrainConfig.model_validate(written) == made
    assert TrainConfig.model_validate(written).model_dump(mode="json") == written


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        config().optimizer.lr = 1.0


def test_lora_as_a_word_is_the_table_of_its_defaults() -> None:
    lora = config(peft="lora").peft
    assert lora is not None
    assert lora == config(peft={}).peft
    assert (lora.dim, lora.alpha, lora.match_all_linear) == (8, 32, True)
    assert config(peft="none").peft is None
    assert errors(peft="qlora") == [("peft", "there is no adapter method of that name")]


def test_named_target_modules_take_the_place_of_all_linear_layers() -> None:
    lora = config(peft={"target_modules": "q_proj"}).peft
    assert lora is not None
    assert lora.target_modules == ("q_proj",)
    assert not lora.match_all_linear
    both = {"target_modules": ["q_proj"], "match_all_linear": True}
    assert "contradict" in errors(peft=both)[0][1]


def test_modules_that_are_trained_whole_are_named_without_wildcards() -> None:
    assert config(peft={"modules_to_save": ["norm", "model.norm"]}).peft is not None
    [(_, message)] = errors(peft={"modules_to_save": ["norm", "layers.*.norm"]})
    assert "no wildcards" in message and "'layers.*.norm'" in message


def test_schedules_in_a_list_begin_at_its_milestones() -> None:
    made = config(
        lr_scheduler=[{"lr_decay_style": "constant"}, {"min_lr": 0}, {"milestones": [30]}]
    )
    phases = made.lr_phases()
    assert [(start, phase.lr_decay_style) for start, phase in phases] == [
        (0, "constant"),
        (30, "cosine"),
    ]


def test_without_a_scheduler_the_rate_is_constant_from_the_first_step() -> None:
    [(start, phase)] = config().lr_phases()
    assert (start, phase.lr_decay_style, phase.lr_warmup_steps) == (0, "constant", 0)


@pytest.mark.parametrize("marks", [[], [{"milestones": [3, 2]}], [{"milestones": [1, 2, 3]}]])
def test_milestones_must_fit_their_schedules(marks: list[Any]) -> None:
    [(_, message)] = errors(lr_scheduler=[{}, {}, {}, *marks])
    assert "milestones" in message


@pytest.mark.parametrize(
    ("tables", "key", "words"),
    [
        ({"optimizer": {"lr": True}}, "optimizer.lr", "number"),
        ({"optimizer": {"lr": 0}}, "optimizer.lr", "greater than 0"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr", "finite"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas.1", "less than 1"),
        ({"model": {"config": {}}}, "model", "model_type"),
        (
            {"model": {"pretrained_model_name_or_path": "a", "config": "b"}},
            "model",
            "exactly one",
        ),
        (
            {"model": {"pretrained_model_name_or_path": "a", "torch_dtype": "int8"}},
            "model.torch_dtype",
            "bfloat16",
        ),
        (
            {"step_scheduler": {"global_batch_size": 10, "local_batch_size": 4}},
            "step_scheduler",
            "not a multiple",
        ),
        ({"distributed": {"strategy": "ddp", "tp_size": 2}}, "distributed", "tp_size"),
        (
            {"distributed": {"dp_size": 6, "dp_replicate_size": 4}},
            "distributed",
            "not a multiple",
        ),
        (
            {"dataset": {"path_or_dataset_id": "a", "streaming": True}},
            "",
            "no known length",
        ),
        (
            {
                "dataset": {"path_or_dataset_id": "a", "streaming": True, "shuffle": True},
                "step_scheduler": {"max_steps": 3},
            },
            "",
            "reads all rows",
        ),
        (
            {"validation_dataset": {"path_or_dataset_id": "a", "streaming": True}},
            "",
            "cannot stream",
        ),
        ({"early_stopping": {}}, "", "validation"),
        ({"lr_scheduler": {"min_lr": 1}}, "", "above optimizer.lr"),
        ({"rng": {"seed": 2**40}}, "rng.seed", "less than or equal"),
    ],
)
def test_what_cannot_work_is_refused_at_its_key(tables: Values, key: str, words: str) -> None:
    [(at, message)] = errors(**tables)
    assert at == key
    assert words in message


def test_all_that_does_not_go_together_is_said_at_once() -> None:
    [(_, message)] = errors(early_stopping={}, lr_scheduler={"min_lr": 1})
    assert "validation" in message
    assert "min_lr" in message


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"lr_warmup_steps": 5}, "warm-up"),
        ([{}, {}, {"milestones": [5]}], "milestone at step 5"),
    ],
)
def test_allowed_but_pointless_settings_are_remarked_on(schedule: Any, words: str) -> None:
    made = config(step_scheduler={"max_steps": 5}, lr_scheduler=schedule)
    [(where, said)] = made.remarks()
    assert where == "lr_scheduler"
    assert words in said


def test_settings_that_come_to_something_are_not_remarked_on() -> None:
    assert config().remarks() == []
    # The shipped configs validate as soon as there is something to validate on.
    plan = {"max_steps": 5, "ckpt_every_steps": 6, "val_every_steps": 2}
    phases = [{}, {}, {"milestones": [4]}]
    assert config(step_scheduler=plan, lr_scheduler=phases).remarks() == []


def test_wandb_is_online_where_a_project_is_named_and_nothing_else_is_said() -> None:
    assert config(wandb={"project": "p"}).wandb.mode == "online"
    assert config(wandb={"project": "p", "mode": "offline"}).wandb.mode == "offline"
    assert config(wandb={"project": "p", "enable": False}).wandb.mode == "disabled"


def test_each_recipe_has_its_schema_and_foreign_ones_have_none() -> None:
    assert dict(SCHEMAS) == {
        "sft": TrainConfig,
        "merge_lora": MergeConfig,
        "inspect": InspectConfig,
    }
    assert schema_for("sft") is TrainConfig
    assert schema_for("dpo") is None
    assert schema_for(None) is None


def test_a_merge_needs_an_adapter_and_nothing_else() -> None:
    assert MergeConfig.model_validate({"lora_checkpoint": "a"}).base_hf_path is None
    with pytest.raises(ValidationError, match="lora_checkpoint"):
        MergeConfig.model_validate({})
    with pytest.raises(ValidationError, match="not available"):
        MergeConfig.model_validate({"lora_checkpoint": "a", "base_megatron_path": "b"})
