from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tunedeck.core.schema import TrainConfig

Values = dict[str, Any]


def config(**tables: Any) -> TrainConfig:
    base: Values = {
        "model": {"pretrained_model_name_or_path": "org/model"},
        "dataset": {"path_or_dataset_id": "train.jsonl"},
    }
    return TrainConfig.model_validate({**base, **tables})


def refusal(**tables: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        config(**tables)
    [error] = caught.value.errors(include_url=False)
    return ".".join(map(str, error["loc"])), str(error.get("ctx", {}).get("fix", ""))


def test_a_config_full_of_targets_is_the_same_as_one_without() -> None:
    theirs = config(
        recipe="nemo_automodel.recipes.llm.train_ft.TrainFinetuneRecipeForNextTokenPrediction",
        model={
            "_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_pretrained",
            "pretrained_model_name_or_path": "org/model",
            "backend": {"attn": "te", "dispatcher": "torch"},
        },
        rng={"_target_": "a.b.rng.StatefulRNG", "seed": 5, "ranked": True},
        loss_fn={"_target_": "a.loss.masked_ce.MaskedCrossEntropy"},
        distributed={"_target_": "a.b.FSDP2Config", "dp_size": "none", "pp_size": 1},
        dataloader={
            "_target_": "torchdata.stateful_dataloader.StatefulDataLoader",
            "collate_fn": {"_target_": "a.default_collater", "pad_seq_len_divisible": 64},
        },
        peft={"_target_": "a.lora.PeftConfig", "use_triton": True, "dim": 4},
        optimizer={"_target_": "torch.optim.Adam", "fused": True},
        dataset={"_target_": "a.chat_dataset.ChatDataset", "path_or_dataset_id": "train.jsonl"},
    )
    ours = config(rng={"seed": 5}, peft={"dim": 4}, optimizer={"name": "adam"})
    assert theirs.model_dump() == ours.model_dump()


@pytest.mark.parametrize(
    ("tables", "key", "nearest"),
    [
        ({"optimizer": {"_target_": "torch.optim.SGD"}}, "optimizer._target_", "AdamW"),
        (
            {"dataset": {"_target_": "a.squad.make_squad_dataset", "path_or_dataset_id": "x"}},
            "dataset._target_",
            "ChatDataset",
        ),
        ({"distributed": {"pp_size": 2}}, "distributed.pp_size", "tp_size"),
        ({"distributed": {"_target_": "a.MegatronFSDP"}}, "distributed._target_", "FSDP2Config"),
        (
            {"model": {"_target_": "a.Seq2Seq", "pretrained_model_name_or_path": "m"}},
            "model._target_",
            "AutoModelForCausalLM",
        ),
        ({"fp8": {"enabled": True}}, "fp8", "bfloat16"),
        ({"quantization": {"load_in_4bit": True}}, "quantization", "peft.quantization"),
        (
            {"packed_sequence": {"split_across_pack": True}},
            "packed_sequence.split_across_pack",
            "drop the key",
        ),
    ],
)
def test_what_would_change_the_result_is_refused_with_the_nearest_there_is(
    tables: Values, key: str, nearest: str
) -> None:
    at, fix = refusal(**tables)
    assert at == key
    assert nearest in fix


def test_values_kept_in_other_places_are_found() -> None:
    made = config(
        seed=9,
        clip_grad_norm={"max_norm": 0.3},
        dataset={
            "path_or_dataset_id": "x",
            "split": "train",
            "limit_dataset_samples": 64,
            "shuffle_seed": 1,
            "tokenizer": {"_target_": "a.from_pretrained", "pretrained_model_name_or_path": "t"},
            "chat_template": "{{ messages }}",
        },
        checkpoint={"is_async": True, "max_recent_checkpoints": 5},
    )
    assert made.rng.seed == 9
    assert made.optimizer.max_grad_norm == 0.3
    assert made.dataset.split == "train[:64]"
    assert made.dataset.shuffle
    assert made.tokenizer.name == "t"
    assert made.tokenizer.chat_template == "{{ messages }}"
    assert (made.checkpoint.async_save, made.checkpoint.keep_last) == (True, 5)


def test_two_tokenizers_in_one_config_are_refused() -> None:
    key, fix = refusal(
        validation_dataset={
            "path_or_dataset_id": "x",
            "tokenizer": {"pretrained_model_name_or_path": "other"},
        },
    )
    assert key == "validation_dataset.tokenizer"
    assert "tokenizer.name" in fix


def test_a_config_built_from_another_models_config_needs_only_its_source() -> None:
    made = config(
        model={
            "_target_": "nemo_automodel.NeMoAutoModelForCausalLM.from_config",
            "config": {
                "_target_": "transformers.AutoConfig.from_pretrained",
                "pretrained_model_name_or_path": "org/model",
            },
        }
    )
    assert made.model.config == "org/model"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(True, "right"), ("longest_first", "right"), (False, "error"), ("drop", "drop")],
)
def test_ways_of_truncating_are_translated(theirs: Any, ours: str) -> None:
    made = config(dataset={"path_or_dataset_id": "x", "truncation": theirs})
    assert made.dataset.truncation == ours
