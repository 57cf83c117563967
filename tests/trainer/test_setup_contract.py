"""The names, parameters, fields and errors of NeMo RL's page, as its readers would use them.

https://docs.nvidia.com/nemo/rl/latest/apidocs/nemo_rl/nemo_rl.models.automodel.setup.html
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.model import Precision
from tunedeck.trainer import setup
from tunedeck.trainer.checkpoints.published import Checkpoints

Configure = Callable[..., TrainConfig]

PARAMETERS = {
    "get_tokenizer": ["tokenizer_config", "get_processor"],
    "validate_and_prepare_config": ["config", "processor", "rank"],
    "setup_reference_model_state": ["model"],
    "setup_distributed": ["config", "runtime_config"],
    "setup_model_and_optimizer": [
        *("config", "tokenizer", "runtime_config", "distributed_context", "checkpoint_manager"),
        *("is_vlm", "init_optimizer", "weights_path", "optimizer_path"),
    ],
}
RUNTIME = """model_class model_config hf_config_overrides allow_flash_attn_args attn_impl dtype
    enable_seq_packing max_grad_norm cpu_offload offload_optimizer_for_logprob
    is_generation_colocated sampling_params is_reward_model"""
STATE = """model optimizer scheduler is_hf_model is_moe_model is_reward_model model_class
    model_config peft_config autocast_enabled"""


@pytest.mark.parametrize("function", PARAMETERS)
def test_each_function_takes_what_the_page_says_in_its_order(function: str) -> None:
    taken = inspect.signature(getattr(setup, function)).parameters.values()
    in_order = [p.name for p in taken if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert in_order == PARAMETERS[function]
    assert all(p.default is not p.empty for p in taken if p.kind is p.KEYWORD_ONLY)


def test_the_formats_are_those_that_the_schema_knows() -> None:
    named = set(get_args(get_args(Precision)[0]))
    assert named - {"auto"} == set(setup.STRING_TO_DTYPE)
    assert all(dtype == getattr(torch, name) for name, dtype in setup.STRING_TO_DTYPE.items())


def as_values(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_unset=True)


@pytest.fixture
def values(configure: Configure) -> dict[str, Any]:
    """A config as the dictionary that a YAML file gives."""
    return as_values(configure(peft={"dim": 4}, step_scheduler={"max_steps": 7}))


def set_up(values: dict[str, Any], folder: Path, **options: Any) -> Any:
    runtime = setup.validate_and_prepare_config(values, None, 0)
    name = values["model"]["pretrained_model_name_or_path"]
    return setup.setup_model_and_optimizer(
        values,
        setup.get_tokenizer({"name": name}),
        runtime,
        setup.setup_distributed(values, runtime),
        Checkpoints(folder, keep_last=None),
        **options,
    )


def test_dictionaries_and_text_paths_set_a_run_up_with_all_of_the_pages_fields(
    values: dict[str, Any], tmp_path: Path
) -> None:
    runtime = setup.validate_and_prepare_config(values, None, 0)
    assert all(hasattr(runtime, name) for name in RUNTIME.split())
    assert runtime.attn_impl == "documents"
    assert runtime.hf_config_overrides == {}
    assert runtime.allow_flash_attn_args
    assert not (runtime.enable_seq_packing or runtime.cpu_offload or runtime.is_reward_model)
    state = set_up(values, tmp_path)
    assert all(hasattr(state, name) for name in STATE.split())
    assert state.is_hf_model
    assert not (state.is_moe_model or state.is_reward_model or state.autocast_enabled)
    assert state.peft_config.r == 4
    assert state.model_class is runtime.model_class
    assert state.scheduler.total_steps == 7
    state.adapter.save_pretrained(tmp_path / "adapter")
    for parameter in state.optimizer.param_groups[0]["params"]:
        torch.nn.init.zeros_(parameter)
    again = set_up(values, tmp_path, weights_path=str(tmp_path / "adapter"), init_optimizer=False)
    first = next(p for name, p in again.model.named_parameters() if "lora_A" in name)
    assert first.abs().sum() > 0


def test_a_model_with_experts_says_so(
    configure: Configure, models_of: Callable[[str], Path], tmp_path: Path
) -> None:
    name = str(models_of("mixtral"))
    config = configure(model={"pretrained_model_name_or_path": name})
    state = set_up(as_values(config), tmp_path, init_optimizer=False)
    assert state.is_moe_model
    assert state.peft_config is None


def test_a_reward_model_overrides_how_many_scores_there_are(configure: Configure) -> None:
    config = configure(model={"reward_model_cfg": {"enabled": True}})
    runtime = setup.validate_and_prepare_config(config, None, 0)
    assert runtime.is_reward_model
    assert runtime.hf_config_overrides == {"num_labels": 1}


PACKED = {"packed_sequence": {"packed_sequence_size": 64}}


class Processor:
    """A processor, as far as it is looked at before the model is known to take images."""

    tokenizer = ()


@pytest.mark.parametrize(
    ("tables", "processor", "said"),
    [
        ({"model": {"torch_dtype": "int8"}}, None, "model.torch_dtype"),
        (PACKED, Processor(), "Packing does not go with a model that takes images"),
        ({"model": {"reward_model_cfg": {"enabled": True}}, **PACKED}, None, "a reward model"),
        (
            {"model": {"reward_model_cfg": {"enabled": True, "reward_model_type": "best"}}},
            None,
            "reward_model_type",
        ),
        ({"distributed": {"cpu_offload": True}}, None, "cpu_offload"),
        ({"distributed": {"tp_size": 3}}, None, "tp_size"),
        ({"model": {"attn_implementation": "flash_attention_2"}}, None, "package flash-attn"),
        ({"model": {"attn_implementation": "flash_attention_3"}}, None, "package flash-attn"),
        ({}, Processor(), "takes no images"),
    ],
)
@pytest.mark.parametrize("error", [UsageError, ValueError, RuntimeError])
def test_what_is_wrong_is_of_the_errors_that_the_page_names(
    tables: dict[str, Any],
    processor: Any,
    said: str,
    error: type[Exception],
    values: dict[str, Any],
) -> None:
    mixed = {**values, **{key: {**values.get(key, {}), **table} for key, table in tables.items()}}
    with pytest.raises(error, match=said):
        setup.validate_and_prepare_config(mixed, processor, 0)


@pytest.mark.parametrize(
    ("options", "changed", "said"),
    [
        ({"is_vlm": True}, {}, "takes no images"),
        ({}, {"step_scheduler": {"num_epochs": 1}}, "length of the run"),
    ],
)
def test_what_the_model_cannot_be_set_up_by_is_refused_before_it_is_loaded(
    options: dict[str, Any],
    changed: dict[str, Any],
    said: str,
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setup, "build_model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(UsageError, match=said):
        set_up({**values, **changed}, tmp_path, **options)


def test_template_variables_that_are_no_mapping_are_refused(llama: Path) -> None:
    with pytest.raises(UsageError, match="chat_template_kwargs"):
        setup.get_tokenizer({"name": str(llama), "chat_template_kwargs": ["a"]})


def test_a_processor_carries_the_ids_of_its_tokenizer(llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "hearing")
    (folder / "preprocessor_config.json").write_text(
        '{"feature_extractor_type": "WhisperFeatureExtractor"}'
    )
    (folder / "processor_config.json").write_text('{"processor_class": "Qwen2AudioProcessor"}')
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    values = {"name": str(folder), "chat_template": None}
    processor = setup.get_tokenizer(values, get_processor=True)
    tokenizer = processor.tokenizer
    assert processor.pad_token_id == processor.eos_token_id == tokenizer.eos_token_id is not None
    assert (processor.pad_token, processor.bos_token_id) == (
        tokenizer.eos_token,
        tokenizer.bos_token_id,
    )
    said = processor.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert said == "a"
