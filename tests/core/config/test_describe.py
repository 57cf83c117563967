from __future__ import annotations

import pytest

from tunedeck.core.config.describe import FieldInfo, describe
from tunedeck.core.schema import SCHEMAS, TrainConfig
from tunedeck.core.schema.base import Table


def rows() -> dict[str, FieldInfo]:
    return {row.key: row for row in describe(TrainConfig)}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_key_says_what_it_does(schema: type[Table]) -> None:
    for row in describe(schema):
        assert row.description.endswith((".", "}.")), row.key
        assert row.type, row.key
        assert not row.key.endswith("_")


def test_the_keys_of_the_reference_are_there() -> None:
    keys = """
    recipe model.pretrained_model_name_or_path model.torch_dtype model.attn_implementation
    model.trust_remote_code model.revision model.force_hf model.config model.freeze.vision_tower
    model.freeze.audio_tower model.freeze.language_model tokenizer.name tokenizer.chat_template
    tokenizer.chat_template_kwargs tokenizer.revision dataset.path_or_dataset_id dataset.split
    dataset.seq_length dataset.truncation dataset.mask dataset.streaming dataset.shuffle
    dataset.num_proc validation_dataset.path_or_dataset_id packed_sequence.packed_sequence_size
    dataloader.shuffle dataloader.num_workers dataloader.prefetch_factor
    step_scheduler.global_batch_size step_scheduler.local_batch_size step_scheduler.max_steps
    step_scheduler.num_epochs step_scheduler.ckpt_every_steps step_scheduler.val_every_steps
    step_scheduler.log_every_steps optimizer.name optimizer.lr optimizer.betas optimizer.eps
    optimizer.weight_decay optimizer.max_grad_norm lr_scheduler.lr_decay_style
    lr_scheduler.lr_warmup_steps lr_scheduler.lr_decay_steps lr_scheduler.min_lr peft.dim
    peft.alpha peft.dropout peft.target_modules peft.exclude_modules peft.match_all_linear
    peft.use_dora peft.use_rslora peft.modules_to_save peft.quantization distributed.strategy
    distributed.dp_size distributed.dp_replicate_size distributed.tp_size distributed.cp_size
    distributed.ep_size distributed.sequence_parallel distributed.activation_checkpointing
    distributed.cpu_offload distributed.defer_fsdp_grad_sync dist_env.backend
    dist_env.timeout_minutes compile.enabled compile.after_steps checkpoint.enabled
    checkpoint.checkpoint_dir checkpoint.model_save_format checkpoint.save_consolidated
    checkpoint.keep_last checkpoint.async_save checkpoint.restore_from rng.seed rng.deterministic
    early_stopping.metric early_stopping.patience early_stopping.min_delta sampling.every_steps
    sampling.prompts sampling.max_new_tokens wandb.mode wandb.project wandb.entity wandb.name
    wandb.group wandb.tags run.env
    """
    assert set(keys.split()) <= set(rows())


def test_keys_that_only_automodel_knows_are_left_out() -> None:
    shown = {key.rpartition(".")[2] for key in rows()}
    assert not shown & {"_target_", "target_", "ranked", "pp_size", "backend_config", "collate_fn"}


def test_a_row_says_what_a_form_needs() -> None:
    by_key = rows()
    style = by_key["lr_scheduler.lr_decay_style"]
    assert (style.kind, style.choices, style.default) == (
        "choice",
        ("constant", "linear", "cosine", "wsd"),
        "cosine",
    )
    steps = by_key["step_scheduler.max_steps"]
    assert (steps.kind, steps.type, steps.nullable, steps.default) == (
        "int",
        "integer ≥ 1 or null",
        True,
        None,
    )
    assert by_key["optimizer.betas"].type == "list of 2 numbers ≥ 0 and < 1"
    assert by_key["optimizer.betas"].default == [0.9, 0.999]
    assert by_key["distributed.activation_checkpointing"].choices == (False, True, "selective")
    assert by_key["dataset.path_or_dataset_id"].required
    assert by_key["dataset.path_or_dataset_id"].path == "input"
    assert by_key["dataset.path_or_dataset_id"].kind == "str"
    assert by_key["checkpoint.checkpoint_dir"].path == "output"
    assert by_key["peft"].kind == "table"
    assert by_key["peft"].nullable
    assert by_key["sampling.prompts"].kind == "list"
