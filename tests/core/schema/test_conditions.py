"""Each condition is found from the config and the model's files alone, and nothing else is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tunedeck.core.findings import Finding
from tunedeck.core.locations import assets_dir
from tunedeck.core.models import facts_of
from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.conditions import CONDITIONS, conditions_of, uses_own_code
from tunedeck.core.schema.model_facts import ModelFacts, model_facts, own_code_file

VISION = {"model_type": "qwen2_vl", "vision_config": {"depth": 1}}
OWN = {"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}}
STORED_IN_FOUR_BITS = {"model_type": "llama", "quantization_config": {"load_in_4bit": True}}
PLAIN = "class Own:\n    pass\n"
ADAPTED = "class Own:\n    def __init__(self):\n        self.state_dict_adapter = Adapter()\n"
CONVERTS = ADAPTED + "class Adapter:\n    def convert_single_tensor_to_hf(self, name, t): ...\n"

TEXT = model_facts({"model_type": "llama"})
CANNOT = model_facts(OWN, ADAPTED)
HYBRID = {"model_type": "new", "layer_types": ["linear_attention", "full_attention"]}
EXPERTS = model_facts({"model_type": "qwen3_moe", "num_experts": 4})
SHARED = model_facts({"model_type": "qwen2_moe", "num_experts": 4})
REMOTE = {"trust_remote_code": True}
PACKED = {"packed_sequence_size": 64}
EAGER = {"packed_sequence": PACKED, "model": {"attn_implementation": "eager"}}
FLASH = {"packed_sequence": PACKED, "model": {"attn_implementation": "flash_attention_2"}}
REWARD = {"reward_model_cfg": {"enabled": True}}


def config(**tables: Any) -> TrainConfig:
    model = {"pretrained_model_name_or_path": "org/model", **tables.pop("model", {})}
    data = {"path_or_dataset_id": "train.jsonl"}
    return TrainConfig.model_validate({"model": model, "dataset": data, **tables})


@pytest.mark.parametrize(
    ("tables", "facts", "expected"),
    [
        ({}, TEXT, set()),
        ({"packed_sequence": PACKED}, TEXT, set()),
        ({}, model_facts(VISION), set()),
        ({"packed_sequence": PACKED}, model_facts(VISION), {"packing_vision"}),
        ({"packed_sequence": PACKED}, model_facts(HYBRID), {"packing_carries"}),
        ({}, model_facts(HYBRID), set()),
        ({"distributed": {"cp_size": 2}}, model_facts(HYBRID), {"context_carries"}),
        ({"distributed": {"cp_size": 2}}, model_facts(VISION), {"context_carries"}),
        ({"distributed": {"cp_size": 2}}, TEXT, set()),
        ({"distributed": {"ep_size": 2}}, TEXT, {"experts_missing"}),
        ({"distributed": {"ep_size": 2}}, EXPERTS, set()),
        ({"distributed": {"ep_size": 2}}, model_facts({}), set()),
        ({}, model_facts({"model_type": "t5", "is_encoder_decoder": True}), {"encoder_decoder"}),
        ({}, model_facts({"model_type": "bert"}), {"encoder"}),
        ({"model": REWARD}, model_facts({"model_type": "bert"}), {"reward_sft"}),
        ({"packed_sequence": PACKED}, model_facts({"model_type": "mpt"}), {"packing_carries"}),
        ({"packed_sequence": PACKED}, model_facts({"model_type": "gptj"}), set()),
        (FLASH, model_facts({"model_type": "gptj"}), {"packing_mixes"}),
        (EAGER, model_facts({"model_type": "gptj"}), set()),
        ({"packed_sequence": PACKED}, model_facts({"model_type": "gpt_oss"}), set()),
        (EAGER, model_facts({"model_type": "gpt_oss"}), {"packing_mixes"}),
        (FLASH, model_facts({"model_type": "gpt_oss"}), set()),
        (EAGER, TEXT, set()),
        ({"model": {"freeze": {"language_model": True}}}, model_facts(VISION), {"text_frozen"}),
        ({"model": {"freeze": {"language_model": True}}}, TEXT, set()),
        ({"peft": {"quantization": "nf4"}}, TEXT, set()),
        ({}, model_facts(STORED_IN_FOUR_BITS), {"quantized_whole"}),
        ({"peft": "lora"}, model_facts(STORED_IN_FOUR_BITS), set()),
        (
            {
                "peft": {"quantization": "nf4"},
                "model": {"pretrained_model_name_or_path": None, "config": "org/model"},
            },
            TEXT,
            {"quantized_anew"},
        ),
        ({"model": REWARD}, TEXT, {"reward_sft"}),
        ({"model": REWARD, "packed_sequence": PACKED}, TEXT, {"packing_reward", "reward_sft"}),
        ({"distributed": {"sequence_parallel": True}}, TEXT, {"sequence_parallel_alone"}),
        ({"distributed": {"sequence_parallel": True, "tp_size": 2}}, TEXT, set()),
        ({"distributed": {"ep_size": 2, "tp_size": 2}}, EXPERTS, set()),
        ({"distributed": {"ep_size": 2, "cp_size": 2}}, EXPERTS, set()),
        ({"distributed": {"tp_size": 2}, "peft": {"use_dora": True}}, TEXT, set()),
        ({"distributed": {"tp_size": 2}, "peft": {}}, TEXT, set()),
        ({"peft": {"use_dora": True}}, TEXT, set()),
        ({"peft": {}}, EXPERTS, {"experts_unadapted"}),
        (
            {"peft": {"target_modules": ["q_proj", "*.o_proj", "mlp.shared_experts"]}},
            EXPERTS,
            set(),
        ),
        ({"peft": {"target_modules": ["q_proj", "experts"]}}, EXPERTS, {"experts_adapted"}),
        ({"peft": {"target_modules": "layers.0.mlp.down_proj"}}, EXPERTS, {"experts_adapted"}),
        ({"peft": {"target_modules": "*_proj"}}, EXPERTS, {"experts_adapted"}),
        ({"peft": {"target_modules": ["*_proj", "w1"]}}, TEXT, set()),
        ({"peft": {"target_modules": "down_proj"}}, SHARED, set()),
        (
            {"distributed": {"tp_size": 2}, "peft": {"quantization": "nf4"}},
            TEXT,
            {"quantized_and_split"},
        ),
        (
            {"distributed": {"ep_size": 2}, "peft": {"quantization": "int8"}},
            TEXT,
            {"quantized_and_split", "experts_missing"},
        ),
        (
            {"distributed": {"cpu_offload": True}, "peft": {"quantization": "nf4"}},
            TEXT,
            {"quantized_and_offload"},
        ),
        ({"distributed": {"cp_size": 2}, "peft": {"quantization": "nf4"}}, TEXT, set()),
        ({"model": {**REMOTE, "force_hf": False}}, CANNOT, {"force_hf_refused"}),
        ({"model": {**REMOTE}}, CANNOT, {"force_hf_set"}),
        ({"model": {**REMOTE, "force_hf": True}}, CANNOT, set()),
        ({"model": {"force_hf": False}}, CANNOT, set()),
        ({"model": {**REMOTE, "force_hf": False}}, model_facts(OWN, CONVERTS), set()),
        ({"model": {**REMOTE, "force_hf": False}}, model_facts(OWN, PLAIN), set()),
    ],
)
def test_a_condition_is_found_where_it_holds_and_nowhere_else(
    tables: dict[str, Any], facts: ModelFacts, expected: set[str]
) -> None:
    found = conditions_of(config(**tables), facts, recipe="sft")
    assert {condition.name for condition in found} == expected


def test_every_condition_of_the_table_is_in_the_test_above() -> None:
    (mark,) = test_a_condition_is_found_where_it_holds_and_nowhere_else.pytestmark
    covered = {name for _, _, names in mark.args[1] for name in names}
    assert covered == {condition.name for condition in CONDITIONS}


@pytest.mark.parametrize(
    "tables",
    [
        {"model": {"torch_dtype": "float8"}},
        {"model": {"reward_model_cfg": {"enabled": True, "reward_model_type": "regression"}}},
        {"tokenizer": {"chat_template_kwargs": "enable_thinking"}},
    ],
)
def test_what_has_no_meaning_is_refused_by_the_schema(tables: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(**tables)


@pytest.mark.parametrize(
    ("force_hf", "code", "expected"),
    [
        (None, PLAIN, True),
        (None, CONVERTS, True),
        (None, ADAPTED, False),
        (True, PLAIN, False),
        (False, PLAIN, True),
        (None, None, True),
        (None, "def broken(", True),
    ],
)
def test_the_models_own_code_is_used_where_it_can_and_may(
    force_hf: bool | None, code: str | None, expected: bool
) -> None:
    facts = model_facts(OWN, code)
    assert uses_own_code(config(model={**REMOTE, "force_hf": force_hf}), facts) is expected
    assert not uses_own_code(config(model={"force_hf": force_hf}), facts)
    assert not uses_own_code(config(model={**REMOTE, "force_hf": force_hf}), TEXT)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("modeling_own.Own", "modeling_own.py"),
        ("owner/other--modeling_own.Own", None),
        (None, None),
        ("nonsense", None),
    ],
)
def test_the_file_of_a_models_own_code_is_the_one_beside_its_config(
    name: str | None, file: str | None
) -> None:
    assert own_code_file({"auto_map": {"AutoModelForCausalLM": name}}) == file


def preflight(tmp_path: Path, model: dict[str, Any], code: str, *overrides: str) -> list[Finding]:
    from tunedeck.core.catalog import load_catalog
    from tunedeck.core.checks.fit import setup
    from tunedeck.core.resolve import resolve
    from tunedeck.core.selection import Selection

    folder = tmp_path / "model"
    shutil.copytree(assets_dir() / "base", folder)
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **model}))
    (folder / "modeling_own.py").write_text(code)
    chosen = (f"model.pretrained_model_name_or_path={folder}", *overrides)
    plan = resolve(Selection("peft/automodel", "tiny", chosen, cwd=tmp_path))
    return list(setup(plan, load_catalog().find("peft/automodel")))


def test_preflight_finds_them_from_the_models_files(tmp_path: Path) -> None:
    (found,) = preflight(
        tmp_path, OWN, ADAPTED, "model.trust_remote_code=true", "model.force_hf=false"
    )
    assert (found.severity, found.key) == ("error", "model.force_hf")
    assert found.place.line is None or found.place.file
    assert found.fix is not None
    assert "force_hf=true" in found.fix.words


def test_preflight_finds_a_vision_model_that_packs(tmp_path: Path) -> None:
    (found,) = preflight(tmp_path, VISION, "", "packed_sequence.packed_sequence_size=64")
    assert (found.severity, found.key) == ("error", "packed_sequence.packed_sequence_size")


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "mamba2"},
        {"model_type": "qwen3_next"},
        {"model_type": "new_one", "layers_block_type": ["attention", "mamba"]},
        {"model_type": "new_one", "ssm_state_size": 16},
        {
            "model_type": "seeing",
            "vision_config": {},
            "text_config": {"model_type": "qwen3_5_text"},
        },
    ],
)
def test_layers_that_carry_a_state_are_known_by_name_kind_or_size(values: dict[str, Any]) -> None:
    assert model_facts(values).carries


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"model_type": "llama"},
        {"model_type": "gemma3_text", "layer_types": ["sliding_attention", "full_attention"]},
        {"model_type": "new_one", "ssm_state_size": None, "layer_types": None},
    ],
)
def test_attention_throughout_carries_nothing(values: dict[str, Any]) -> None:
    assert not model_facts(values).carries


def test_preflight_finds_a_hybrid_model_that_packs(tmp_path: Path) -> None:
    hybrid = {"layer_types": ["full_attention", "conv"]}
    (found,) = preflight(tmp_path, hybrid, "", "packed_sequence.packed_sequence_size=64")
    assert (found.severity, found.key) == ("error", "packed_sequence.packed_sequence_size")
    assert "carry one row into the next" in found.message


def test_a_model_that_is_not_here_or_is_damaged_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1")
    for name in ("org/nowhere", str(tmp_path)):
        facts = facts_of({"model": {"pretrained_model_name_or_path": name}})
        assert facts == ModelFacts("")


def test_they_are_found_without_torch() -> None:
    code = (
        "import sys; import tunedeck.core.schema.conditions, tunedeck.core.models; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
