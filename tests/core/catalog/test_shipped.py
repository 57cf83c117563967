"""What ships must be right in itself: configs, manifests and schema speak of the same things."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tunedeck.core.catalog import Step, load_catalog
from tunedeck.core.config.describe import describe
from tunedeck.core.config.overrides import parse_override
from tunedeck.core.schema import schema_for
from tunedeck.core.schema.base import Table

CATALOG = load_catalog()
TRAINING = [CATALOG.find("sft/automodel"), CATALOG.find("peft/automodel")]
CONFIGURED = [step for step in CATALOG.steps if step.launch.schema]
FAILURES = {
    "out_of_memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "model_is_gated": "huggingface_hub.errors.GatedRepoError: 403 Client Error.",
    "token_refused": "Invalid user token. If you didn't pass a user token, log in",
    "model_not_found": "OSError: x is not a local folder and is not a valid model identifier",
    "hub_unreachable": "OSError: We couldn't connect to the hub to load the files",
    "dataset_not_found": "datasets.exceptions.DatasetNotFoundError: Dataset 'x' doesn't exist",
    "no_chat_template": "ValueError: tokenizer.chat_template is not set",
    "loss_not_finite": "step=12 epoch=0 loss=nan grad_norm=0.91",
    "port_in_use": "failed to bind to [::]:29500 (errno: 98 - Address already in use).",
    "collective_timed_out": "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(",
    "disk_full": "OSError: [Errno 28] No space left on device",
    "shared_memory_too_small": "RuntimeError: DataLoader worker killed by signal: Bus error.",
    "wandb_key_missing": "wandb.errors.UsageError: api_key not configured (no-tty)",
    "packed_parquet": "UsageError: x.parquet is packed Parquet",
    "driver_too_old": "RuntimeError: CUDA error: no kernel image is available for execution",
    "base_mismatch": "RuntimeError: size mismatch for base_model.model.q_proj.lora_A",
    "no_adapter": "ValueError: Can't find 'adapter_config.json' at 'x'",
    "output_exists": "output_hf_path x exists",
    "file_exists": "env.slurm.toml already exists",
    "parent_missing": "There is no profile 'slurm_base' to extend",
    "data_not_found": "tunedeck: error: There is no file at data/train.jsonl",
    "tokenizer_not_here": "The tokenizer 'org/model' is not on this machine.",
    "placeholder_left": "slurm_base.host is a placeholder",
}
HEALTHY = """
step=12 epoch=0 loss=2.3145 grad_norm=0.91 lr=2.0e-04 tokens=8192 tokens_per_s=10312 mfu=0.41
step=20 val_loss=2.114203 val_tokens=4096
wandb: Tracking run with wandb version 0.19
INFO Loading checkpoint shards: 100%|##########| 4/4 [00:01<00:00]
Some weights were not used when initializing the model; this is expected
answer: Ina has 28 stamps. Information about infinity is not a number.
tunedeck: exit=0
"""


def schema_of(step: Step) -> type[Table]:
    assert step.launch.schema is not None
    schema = schema_for(step.launch.schema)
    assert schema is not None
    return schema


def test_nothing_is_found_wrong() -> None:
    assert CATALOG.findings == ()
    assert CATALOG.broken == {}
    assert all(step.notes == () for step in CATALOG.steps)
    assert {s.id for s in CATALOG.steps} >= {
        *("sft/automodel", "peft/automodel", "convert/merge_lora", "env/env_toml"),
    }


@pytest.mark.parametrize("step", CONFIGURED, ids=lambda step: step.id)
def test_each_step_ships_tiny_and_default(step: Step) -> None:
    assert {"tiny", "default"} <= set(step.configs)
    assert step.default_config == "default"


@pytest.mark.parametrize("step", CONFIGURED, ids=lambda step: step.id)
def test_no_config_places_the_run(step: Step) -> None:
    for file in step.configs.values():
        assert "run" not in yaml.safe_load(file.read_text())


@pytest.mark.parametrize("step", CONFIGURED, ids=lambda step: step.id)
def test_every_key_that_a_manifest_speaks_of_is_one_of_the_schema(step: Step) -> None:
    known = {info.key for info in describe(schema_of(step))}
    artifacts = (*step.manifest.consumes, *step.manifest.produces)
    keys = [p.name for p in step.manifest.parameters] + [a.key for a in artifacts if a.key]
    assert set(keys) <= known


@pytest.mark.parametrize("step", CONFIGURED, ids=lambda step: step.id)
def test_every_key_that_advice_tells_to_set_is_one_of_the_schema(step: Step) -> None:
    schemas = {*map(schema_of, TRAINING), schema_of(step)}
    known = {info.key for schema in schemas for info in describe(schema)}
    tables = {key.partition(".")[0] for key in known if "." in key}
    texts = [s.then for s in step.manifest.strategies] + [e.recovery for e in step.manifest.errors]
    named = {key for text in texts for key in re.findall(r"\b([a-z_]+(?:\.[a-z_]+)+)\b", text)}
    assert {key for key in named if key.partition(".")[0] in tables} <= known


@pytest.mark.parametrize("step", TRAINING, ids=lambda step: step.id)
def test_declared_defaults_are_those_of_the_default_config(step: Step) -> None:
    config = yaml.safe_load(step.configs["default"].read_text())
    for parameter in step.manifest.parameters:
        *tables, key = parameter.name.split(".")
        section = config
        for table in tables:
            section = section.get(table, {})
        if key in section and parameter.default is not None:
            written = parse_override(f"{parameter.name}={parameter.default}").value
            assert section[key] == written, parameter.name
    (default,) = [model.name for model in step.manifest.models if model.default]
    assert config["model"]["pretrained_model_name_or_path"] == default


@pytest.mark.parametrize("step", CONFIGURED, ids=lambda step: step.id)
def test_every_choice_is_a_value_that_the_schema_takes(step: Step) -> None:
    schema = schema_of(step)
    for parameter in step.manifest.parameters:
        for choice in parameter.choices:
            config: dict[str, Any] = yaml.safe_load(step.configs["default"].read_text())
            *tables, key = parameter.name.split(".")
            section: dict[str, Any] = config
            for table in tables:
                section = section.setdefault(table, {})
            section[key] = choice
            schema.model_validate(config)


@pytest.mark.parametrize("step", CATALOG.steps, ids=lambda step: step.id)
def test_every_known_error_is_found_in_its_log_and_not_in_a_healthy_one(step: Step) -> None:
    for error in step.manifest.errors:
        assert error.pattern is not None
        assert re.search(error.pattern, FAILURES[error.name]), error.name
        if step.launch.kind != "builtin":
            assert not re.search(error.pattern, HEALTHY), error.name


@pytest.mark.parametrize("step", CATALOG.steps, ids=lambda step: step.id)
def test_errors_are_told_apart_by_name(step: Step) -> None:
    names = [error.name for error in step.manifest.errors]
    assert len(names) == len(set(names))


def test_an_adapter_becomes_a_model_by_a_step_that_ships() -> None:
    (conversion,) = CATALOG.artifacts.conversions("checkpoint_lora", "checkpoint_hf") or ()
    step = CATALOG.find(conversion.step)
    assert "checkpoint_lora" in [artifact.type for artifact in step.manifest.consumes]
    assert "checkpoint_hf" in [artifact.type for artifact in step.manifest.produces]
