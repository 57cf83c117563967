"""Preflight: what can be known to be wrong before a run is registered, each with a mend."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core import locations
from tunedeck.core import preflight as module
from tunedeck.core.catalog import Step
from tunedeck.core.errors import UsageError
from tunedeck.core.findings import Finding
from tunedeck.core.locations import assets_dir
from tunedeck.core.plan import Plan
from tunedeck.core.prepare import prepare
from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.continuing import STATE_FILE, data_order
from tunedeck.core.selection import Selection


def _findings(*overrides: str, **changes: Any) -> list[Finding]:
    selection = Selection("peft/automodel", "tiny", overrides=overrides, **changes)
    return asyncio.run(prepare(selection, online=False)).findings


def _errors(*overrides: str, **changes: Any) -> list[Finding]:
    return [f for f in _findings(*overrides, **changes) if f.severity == "error"]


def test_the_shipped_launch_has_nothing_to_complain_of() -> None:
    assert {finding.severity for finding in _findings()} == {"info"}


def test_a_check_that_hangs_is_given_up_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_up = threading.Event()

    def slow_look(plan: Plan, step: Step) -> Iterable[Finding]:
        given_up.wait(60)
        return []

    def broken_look(plan: Plan, step: Step) -> Iterable[Finding]:
        raise UsageError("it cannot be told", fix="Look elsewhere.")

    async def looked() -> list[Finding]:
        try:
            return (await prepare(Selection("peft/automodel", "tiny"), online=False)).findings
        finally:
            given_up.set()

    monkeypatch.setattr(module, "_LIMIT", 1.5)
    monkeypatch.setattr(module, "CHECKS", (slow_look, broken_look))
    found = asyncio.run(looked())
    assert any(one.severity == "warning" and "slow look" in one.message for one in found)
    (broken,) = [one for one in found if one.severity == "error"]
    assert broken.message == "it cannot be told"
    assert broken.fix is not None


def test_checks_that_are_interrupted_before_they_begin_leave_no_words() -> None:
    async def interrupted() -> None:
        task = asyncio.create_task(prepare(Selection("peft/automodel", "tiny"), online=False))
        await asyncio.sleep(0)  # to where the checks have been made, and none has begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        asyncio.run(interrupted())
        gc.collect()
    assert [str(one.message) for one in said] == []


def test_a_batch_that_does_not_divide_comes_with_one_that_does() -> None:
    (error,) = _errors(
        "step_scheduler.global_batch_size=18", "step_scheduler.local_batch_size=6",
        "run.env.nproc_per_node=4",
    )  # fmt: skip
    assert error.key == "step_scheduler.global_batch_size"
    assert error.fix is not None
    assert error.fix.edit is not None
    assert error.fix.edit.value % 24 == 0


def test_ranks_that_do_not_divide_into_groups_are_told_which_numbers_would() -> None:
    errors = _errors("distributed.tp_size=2", "run.env.nproc_per_node=3")
    assert any("tp_size" in str(e.key) and e.fix and "4" in e.fix.words for e in errors)


def test_a_folder_without_a_model_and_a_model_without_template_are_found(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert any(
        "config.json" in e.message
        for e in _errors("model.pretrained_model_name_or_path=empty", cwd=tmp_path)
    )
    bare = tmp_path / "bare"
    shutil.copytree(locations.assets_dir() / "base", bare)
    (bare / "chat_template.jinja").unlink()
    errors = _errors("model.pretrained_model_name_or_path=bare", cwd=tmp_path)
    assert any("template" in e.message for e in errors)


@pytest.mark.parametrize("key", ["lora_checkpoint", "base_hf_path"])
def test_what_a_merge_takes_must_be_there(tmp_path: Path, key: str) -> None:
    named = {"lora_checkpoint": str(tmp_path), "base_hf_path": "owner/name", key: "/no/such/folder"}
    overrides = tuple(f"{one}={path}" for one, path in named.items())
    selection = Selection("convert/merge_lora", "default", overrides)
    found = asyncio.run(prepare(selection, online=False)).findings
    assert [f.key for f in found if f.severity == "error"] == [key]


def test_a_merge_writes_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").touch()
    (tmp_path / "empty").mkdir()
    for output, wrong in (("full", True), ("empty", False), ("new", False)):
        named = ("lora_checkpoint=a/b", "base_hf_path=a/c", f"output_hf_path={output}")
        selection = Selection("convert/merge_lora", "default", named, cwd=tmp_path)
        found = asyncio.run(prepare(selection, online=False)).findings
        errors = [one.key for one in found if one.severity == "error"]
        assert errors == (["output_hf_path"] if wrong else [])


def test_a_tokenizer_that_is_not_there_or_does_not_fit_the_model_is_found(tmp_path: Path) -> None:
    (error,) = _errors(f"tokenizer.name={tmp_path}/nowhere")
    assert (error.key, error.message) == (
        "tokenizer.name",
        f"There is no tokenizer at {tmp_path}/nowhere.",
    )
    assert _errors(f"tokenizer.name={assets_dir() / 'base'}") == []
    small = tmp_path / "small"
    shutil.copytree(assets_dir() / "base", small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    (error,) = _errors(f"model.pretrained_model_name_or_path={small}")
    assert error.key == "tokenizer.name"
    assert "the model has embeddings for 100" in error.message


def test_a_new_model_of_a_table_needs_a_tokenizer() -> None:
    new = ("model.pretrained_model_name_or_path=null", "model.config.model_type=llama", "peft=null")
    assert "tokenizer.name" in {error.key for error in _errors(*new)}
    named = f"tokenizer.name={assets_dir() / 'base'}"
    assert "tokenizer.name" not in {error.key for error in _errors(*new, named)}


def test_a_model_of_the_hub_that_is_not_cached_is_a_warning_here() -> None:
    found = _findings("model.pretrained_model_name_or_path=someone/model-7b")
    assert any(f.severity == "warning" and "download" in f.message for f in found)


def test_a_model_that_needs_more_gpus_than_there_are_is_refused() -> None:
    errors = _errors("model.pretrained_model_name_or_path=meta-llama/Llama-3.3-70B-Instruct")
    assert any("GPU" in e.message for e in errors)


def test_a_model_too_large_for_the_memory_is_said_with_what_would_fit(tmp_path: Path) -> None:
    big = {
        "model_type": "llama", "hidden_size": 16384, "num_hidden_layers": 120,
        "intermediate_size": 53248, "vocab_size": 128256, "num_attention_heads": 128,
    }  # fmt: skip
    base = tmp_path / "big"
    shutil.copytree(locations.assets_dir() / "base", base)
    (base / "config.json").write_text(json.dumps(big))
    found = _findings("model.pretrained_model_name_or_path=big", "peft=null", cwd=tmp_path)
    (warning,) = [f for f in found if f.severity == "warning" and "memory" in f.message]
    assert warning.fix is not None
    assert "GPUs" in warning.fix.words or "smaller" in warning.fix.words


def test_the_format_that_is_left_to_the_machine_is_float32_without_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def estimated(name: str) -> str:
        found = _findings(f"model.torch_dtype={name}", "peft.dim=64")
        (words,) = (f.message for f in found if f.message.startswith("Estimated memory"))
        return words

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert estimated("auto") == estimated("float32") != estimated("bfloat16")


def test_an_output_folder_that_cannot_be_a_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    errors = _errors("checkpoint.checkpoint_dir=file/checkpoints", cwd=tmp_path)
    assert any(e.key == "checkpoint.checkpoint_dir" for e in errors)


@pytest.mark.parametrize(
    ("profile", "path", "wrong"),
    [
        ("host = 'login'", "out", True),
        ("host = 'login'", "~/out", True),
        ("host = 'login'", "/lustre/out", False),
        ("host = 'login'", "null", False),
        ("host = 'login'\ntunnel = 'local'", "out", False),
        ("", "out", False),  # submitted from the cluster itself
    ],
)
def test_an_output_elsewhere_is_not_sought_in_a_folder_of_this_machine(
    tmp_path: Path, profile: str, path: str, wrong: bool
) -> None:
    (tmp_path / "env.toml").write_text(
        f"[far]\nexecutor = 'slurm'\n{profile}\naccount = 'nlp'\npartition = 'gpu'\n"
        "remote_job_dir = '/lustre/runs'\ntime = '01:00:00'\n"
    )
    found = _errors(f"checkpoint.checkpoint_dir={path}", profile="far", cwd=tmp_path)
    assert [one.key for one in found] == (["checkpoint.checkpoint_dir"] if wrong else [])


def test_too_little_room_is_told_in_units_that_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3 << 20}))
    (error,) = _errors("peft.dim=64")
    assert "has 3 MiB free; the checkpoints take about" in error.message
    assert "0.0 GiB" not in error.message


def test_data_findings_point_at_the_value_that_named_the_data(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{nonsense\n")
    (error,) = _errors("dataset.path_or_dataset_id=rows.jsonl", cwd=tmp_path)
    assert error.key == "dataset.path_or_dataset_id"
    assert "1" in error.message


def test_of_a_blend_the_files_that_lie_elsewhere_are_left_to_that_machine(tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_text(
        "[far]\nexecutor = 'slurm'\nhost = 'login'\naccount = 'nlp'\npartition = 'gpu'\n"
        "remote_job_dir = '/lustre/runs'\ntime = '01:00:00'\n"
    )
    far = {"profile": "far", "cwd": tmp_path}
    assert not _errors("dataset.path_or_dataset_id=[/lustre/a.jsonl, /lustre/*.jsonl]", **far)
    (error,) = _errors("dataset.path_or_dataset_id=[/lustre/a.jsonl, nope.jsonl]", **far)
    assert "nope.jsonl" in error.message
    (error,) = _errors("dataset.path_or_dataset_id=[/lustre/a.jsonl, nope.jsonl]")
    assert "/lustre/a.jsonl" in error.message


@pytest.mark.parametrize(
    ("overrides", "most"),
    [
        (("dataset.seq_length=9000",), 2048),
        (("dataset.seq_length=9000", "packed_sequence.packed_sequence_size=512"), 512),
        (("dataset.seq_length=null", "packed_sequence.packed_sequence_size=4096"), 2048),
        (("dataset.seq_length=300", "packed_sequence.packed_sequence_size=512"), 300),
    ],
)
def test_rows_are_judged_by_what_the_model_and_a_pack_take(
    overrides: tuple[str, ...], most: int, tmp_path: Path
) -> None:
    row = {"prompt": "a" * 30, "completion": "b " * 4000}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    found = _findings(f"dataset.path_or_dataset_id={tmp_path}/rows.jsonl", *overrides)
    (cut,) = (f.message for f in found if "supervised tokens are lost" in f.message)
    assert f"longer than {most} tokens" in cut
    refused = _errors(
        f"dataset.path_or_dataset_id={tmp_path}/rows.jsonl", "dataset.truncation=error", *overrides
    )
    assert [f"({most})" in error.message for error in refused] == [True]


def test_a_checkpoint_whose_place_is_none_in_the_data_is_refused_without_torch(
    tmp_path: Path,
) -> None:
    config = asyncio.run(prepare(Selection("peft/automodel", "tiny"), online=False)).plan.config
    order = data_order(TrainConfig.model_validate(config))
    state = tmp_path / "checkpoints/step_000002" / STATE_FILE
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"data": order}))
    (tmp_path / "checkpoints/latest").symlink_to("step_000002")
    restore = f"checkpoint.restore_from={tmp_path}"
    assert {finding.severity for finding in _findings(restore)} == {"info"}
    (error,) = _errors(restore, "packed_sequence.packed_sequence_size=64")
    assert error.key == "packed_sequence.packed_sequence_size"
    assert error.fix is not None and error.fix.edit is not None
    assert error.fix.edit.value == order["packed_sequence.packed_sequence_size"]
    warned = [f for f in _findings(restore, "rng.seed=77") if f.severity == "warning"]
    assert [finding.key for finding in warned] == ["rng.seed"]
    state.write_text("{")
    assert [e.key for e in _errors(restore)] == ["checkpoint.restore_from"]
    assert [e.key for e in _errors(f"checkpoint.restore_from={tmp_path}/nowhere")] == [
        "checkpoint.restore_from"
    ]


@pytest.mark.parametrize(
    ("override", "severity", "said", "fix"),
    [
        (
            "peft.target_modules=[q_prj]",
            "error",
            "No linear layer of the model is called 'q_prj'",
            "Did you mean 'q_proj'? It has down_proj, gate_proj, k_proj",
        ),
        ("peft.exclude_modules=['*vision*']", "warning", "called '*vision*'", "q_proj"),
        ("peft.modules_to_save=[embed_token]", "error", "No module", "'embed_tokens'?"),
        ("peft=null", "warning", "every weight is trained", "Set peft=lora"),
    ],
)
def test_layers_that_the_model_has_not_are_found_without_torch(
    override: str, severity: str, said: str, fix: str
) -> None:
    (found,) = (one for one in _findings(override) if one.key == override.partition("=")[0])
    assert found.severity == severity
    assert said in found.message
    assert found.fix is not None and fix in found.fix.words


def test_layers_of_a_model_of_a_table_are_found_by_its_kind() -> None:
    table = "model.config={model_type: qwen2, num_hidden_layers: 2, vocab_size: 600}"
    overrides = ("model.pretrained_model_name_or_path=null", table)
    named = [f.key for f in _errors(*overrides, "peft.target_modules=[c_attn, layers.1.*]")]
    assert "peft.target_modules" in named
    named = [f.key for f in _errors(*overrides, "peft.target_modules=[q_proj, layers.1.*]")]
    assert "peft.target_modules" not in named


def test_the_layers_of_the_shipped_model_are_told_as_they_are() -> None:
    (none,) = ([f for f in _findings("peft.target_modules=['*_proj']") if f.severity != "info"],)
    assert none == []


@pytest.mark.parametrize(
    ("override", "module"),
    [
        ("peft.quantization=nf4", "bitsandbytes"),
        ("optimizer.name=adamw8bit", "bitsandbytes"),
        ("model.attn_implementation=flash_attention_2", "flash_attn"),
        ("model.attn_implementation=flash_attention_3", "flash_attn_interface"),
    ],
)
def test_a_package_that_the_config_needs_and_this_machine_lacks_is_found(
    override: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: set[str] = set()
    monkeypatch.setattr(
        "tunedeck.core.checks.inputs.find_spec", lambda name: name if name in there else None
    )
    (error,) = _errors(override)
    assert error.key == override.partition("=")[0]
    assert error.fix is not None and "pip install" in error.fix.words
    there.add(module)
    assert _errors(override) == []
