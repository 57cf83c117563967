"""Merging an adapter: against PEFT, and refusing what does not fit."""

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from tunedeck.core.errors import UsageError
from tunedeck.core.schema.merge import MergeConfig
from tunedeck.trainer.checkpoints.checksums import sha256, write_sums
from tunedeck.trainer.checkpoints.safetensors_files import write_file
from tunedeck.trainer.merging import merge, merge_plan
from tunedeck.trainer.model.fingerprint import base_digest

from .adapters import adapted, load, logits, make_adapter, run

# PEFT asks for a name that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def make_base(folder: Path, *, tied: bool = False, seed: int = 0, **options: Any) -> Path:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48}
    config = LlamaConfig(
        **{**sizes, **options.pop("config", {})},
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder, **options)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="lora"),
        pytest.param({"use_rslora": True}, id="rslora"),
        pytest.param({"use_dora": True}, id="dora"),
        pytest.param({"use_dora": True, "use_rslora": True}, id="dora-rslora"),
        pytest.param({"modules_to_save": ["lm_head"]}, id="saved-head"),
        pytest.param({"modules_to_save": ["embed_tokens", "lm_head"]}, id="saved-both"),
        pytest.param({"target_modules": ["q_proj", "lm_head"]}, id="adapted-head"),
        pytest.param({"target_modules": ["v_proj", "embed_tokens"]}, id="adapted-embedding"),
        pytest.param(
            {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 40}},
            id="patterns",
        ),
    ],
)
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.filterwarnings("ignore:.*tie", "ignore:Setting `save_embedding_layers`")
def test_merged_logits_are_the_adapters(
    tmp_path: Path, options: dict[str, Any], tied: bool
) -> None:
    base = make_base(tmp_path / "base", tied=tied)
    adapter = make_adapter(base, tmp_path / "adapter", **options)

    merged = load(run(adapter, tmp_path / "run"))

    expected = logits(adapted(base, adapter))
    assert (expected - logits(load(base))).abs().max() > 0.05
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_merged_weights_are_those_of_pefts_own_merge(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **options)

    merged = load_file(run(adapter, tmp_path / "run") / "model.safetensors")

    expected = adapted(base, adapter).merge_and_unload().state_dict()
    assert merged.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(merged[name], weight, rtol=0, atol=1e-6)


def test_a_sharded_base_stays_sharded_as_it_was(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", max_shard_size="20KB")
    adapter = make_adapter(base, tmp_path / "adapter")

    output = run(adapter, tmp_path / "run")

    index = "model.safetensors.index.json"
    weight_map = json.loads((output / index).read_text())["weight_map"]
    assert weight_map == json.loads((base / index).read_text())["weight_map"]
    assert len(set(weight_map.values())) > 2
    torch.testing.assert_close(
        logits(load(output)), logits(adapted(base, adapter)), rtol=0, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_weights_that_are_stored_transposed_are_merged(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=60, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    torch.manual_seed(0)
    base = tmp_path / "base"
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    adapter = make_adapter(base, tmp_path / "adapter", use_dora=True)

    merged = load(run(adapter, tmp_path / "run"))

    torch.testing.assert_close(logits(merged), logits(adapted(base, adapter)), rtol=0, atol=1e-5)


def test_the_format_of_the_base_is_kept_unless_another_is_asked_for(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    half = tmp_path / "half"
    load(base).bfloat16().save_pretrained(half)
    adapter = make_adapter(half, tmp_path / "adapter")

    kept = run(adapter, tmp_path / "one", base_hf_path=str(half))
    wide = run(adapter, tmp_path / "two", base_hf_path=str(half), torch_dtype="float32")

    assert {w.dtype for w in load_file(kept / "model.safetensors").values()} == {torch.bfloat16}
    assert {w.dtype for w in load_file(wide / "model.safetensors").values()} == {torch.float32}
    assert AutoModelForCausalLM.from_pretrained(wide).dtype == torch.float32
    difference = [
        json.loads((tmp_path / name / "result.json").read_text())["logit_difference"]
        for name in ("one", "two")
    ]
    assert difference[1] < 1e-5 < difference[0]


def test_tokenizer_and_generation_config_go_along(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    (adapter / "tokenizer.json").write_text('{"trained": true}')
    (adapter / "chat_template.jinja").write_text("template")

    output = run(adapter, tmp_path / "run")
    bare = run(adapter, tmp_path / "bare", save_tokenizer=False)

    assert (output / "tokenizer.json").read_text() == '{"trained": true}'
    assert (output / "chat_template.jinja").read_text() == "template"
    assert (output / "generation_config.json").is_file()
    assert not (output / "adapter_config.json").exists()
    assert not (bare / "tokenizer.json").exists()


@pytest.mark.parametrize("inside", ["", "best", "checkpoints/best", "checkpoints/latest"])
def test_a_checkpoint_a_folder_of_checkpoints_or_a_run_is_understood(
    tmp_path: Path, inside: str
) -> None:
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    trained = tmp_path / "trained"
    place = trained / inside
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(adapter)

    assert run(trained, tmp_path / "run").is_dir()


def test_of_a_runs_checkpoints_the_best_is_merged(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    checkpoints = tmp_path / "trained" / "checkpoints"
    for name in ("step_000010", "step_000020"):
        make_adapter(base, checkpoints / name)
    (checkpoints / "best").symlink_to("step_000010")
    (checkpoints / "latest").symlink_to("step_000020")

    found = merge.find_adapter(str(tmp_path / "trained"))

    assert found == checkpoints / "step_000010"


def test_one_weight_of_the_base_is_held_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    held: list[weakref.ref[torch.Tensor]] = []
    original = merge_plan.load_tensor

    def watched(*arguments: Any) -> torch.Tensor:
        assert [one for one in held if one() is not None] == []
        tensor = original(*arguments)
        held.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(merge_plan, "load_tensor", watched)
    run(adapter, tmp_path / "run")
    assert len(held) > 15


def test_only_the_first_rank_merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    monkeypatch.setenv("RANK", "1")

    assert merge.main(MergeConfig(lora_checkpoint=str(adapter)), tmp_path) == 0

    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_another_base_of_the_same_shape_is_refused_by_its_digest(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    record = {"base": str(base), "digest": base_digest(base)}
    (adapter / "base.json").write_text(json.dumps(record))
    shutil.copytree(base, tmp_path / "moved")
    make_base(tmp_path / "other", seed=9)
    shutil.copytree(base, tmp_path / "edited")
    edited = load_file(tmp_path / "edited/model.safetensors")
    edited["model.embed_tokens.weight"][30] = 0
    save_file(edited, tmp_path / "edited/model.safetensors", metadata={"format": "pt"})

    for other in ("other", "edited"):
        with pytest.raises(UsageError, match=rf"does not fit the base .*{other}"):
            run(adapter, tmp_path / "run", base_hf_path=str(tmp_path / other))
    assert run(adapter, tmp_path / "run", base_hf_path=str(tmp_path / "moved")).is_dir()


def test_an_adapter_without_a_digest_is_judged_by_the_base_that_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    other = {"base_hf_path": str(make_base(tmp_path / "other", seed=9))}
    with pytest.raises(UsageError, match=r"does not fit the base .*other"):
        run(adapter, tmp_path / "run", **other)
    shutil.rmtree(tmp_path / "base")
    run(adapter, tmp_path / "run", **other)
    assert f"the adapter names '{tmp_path / 'base'}'" in capsys.readouterr().out


def test_a_damaged_adapter_is_refused(tmp_path: Path) -> None:
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    weights = adapter / "adapter_model.safetensors"
    write_sums(adapter, {weights.name: sha256(weights)})
    content = bytearray(weights.read_bytes())
    content[-1] ^= 0x40
    weights.write_bytes(content)
    with pytest.raises(UsageError, match=r"adapter_model\.safetensors is damaged"):
        run(adapter, tmp_path / "run")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"intermediate_size": 64}, r"'model\.layers\.0\.mlp\.down_proj\.weight' is \[32, 64\]"),
        ({"num_hidden_layers": 1}, r"no weight 'model\.layers\.1\."),
    ],
)
def test_a_base_of_another_shape_is_refused_by_the_weights_name(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    adapter = make_adapter(make_base(tmp_path / "base"), tmp_path / "adapter")
    other = LlamaConfig.from_pretrained(tmp_path / "base")
    other.update(config)
    AutoModelForCausalLM.from_config(other).save_pretrained(tmp_path / "other")
    shutil.rmtree(tmp_path / "base")

    with pytest.raises(UsageError, match=message):
        run(adapter, tmp_path / "run", base_hf_path=str(tmp_path / "other"))
    assert list((tmp_path / "run").iterdir()) == []


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    link = tmp_path / "link"
    link.symlink_to(base)

    for output in (base, adapter / "merged", tmp_path, link, link / "new"):
        with pytest.raises(UsageError, match="overlaps"):
            run(adapter, tmp_path / "run", output_hf_path=str(output))
    with pytest.raises(UsageError, match="not empty"):
        run(adapter, tmp_path / "run", output_hf_path=str(full))
    # As a merge leaves it that is killed.
    half = tmp_path / ".new.in_progress"
    half.mkdir()
    assert run(adapter, tmp_path / "run", output_hf_path=str(tmp_path / "new")).is_dir()
    assert not half.exists()


def test_a_full_disk_is_said_with_the_file() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        write_file(Path("/dev/full"), [], lambda _: pytest.fail("none is read"))
    assert caught.value.filename == "/dev/full"


def test_a_failed_merge_leaves_nothing_behind(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", max_shard_size="20KB")
    adapter = make_adapter(base, tmp_path / "adapter")
    shard = max(base.glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-8])

    with pytest.raises(UsageError, match=shard.name):
        run(adapter, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_what_holds_no_adapter_is_said_to(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    with pytest.raises(UsageError, match="holds a whole model"):
        run(base, tmp_path / "run")
    with pytest.raises(UsageError, match="not found"):
        run(tmp_path / "nothing", tmp_path / "run")


def test_an_adapter_that_changes_more_than_low_rank_is_refused(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    for changed, named in (
        ({**config, "lora_bias": True}, "lora_bias"),
        ({**config, "init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ({"peft_type": "IA3", "task_type": "CAUSAL_LM"}, "kind IA3"),
    ):
        file.write_text(json.dumps(changed))
        with pytest.raises(UsageError, match=named):
            run(adapter, tmp_path / "run")


def test_an_adapter_whose_base_is_gone_says_how_to_name_it(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter")
    shutil.rmtree(base)
    with pytest.raises(UsageError, match="no such folder") as caught:
        run(adapter, tmp_path / "run")
    assert "base_hf_path" in caught.value.fix
