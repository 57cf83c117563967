"""The kinds of models that a run sets up, and whose code they are built from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.model import TokenizerConfig
from tunedeck.trainer import sft
from tunedeck.trainer.checkpoints.published import Checkpoints
from tunedeck.trainer.model.kinds import Kind
from tunedeck.trainer.setup import (
    get_tokenizer,
    setup_distributed,
    setup_model_and_optimizer,
    validate_and_prepare_config,
)

from .helpers import SIZES, losses

Configure = Callable[..., TrainConfig]

OWN = """
from transformers import LlamaForCausalLM


class OwnForCausalLM(LlamaForCausalLM):
    @property
    def state_dict_adapter(self):
        return Adapter()


class Adapter:
    def to_hf(self, state):
        return state
"""
CONVERTS = OWN + "\n    def convert_single_tensor_to_hf(self, name, tensor):\n        return name\n"


@pytest.fixture
def own(llama: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A model that comes with its own implementation."""

    def make(code: str) -> Path:
        folder = tmp_path / "own"
        shutil.copytree(llama, folder)
        values = json.loads((folder / "config.json").read_text())
        values["auto_map"] = {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
        (folder / "config.json").write_text(json.dumps(values))
        (folder / "modeling_own.py").write_text(code)
        return folder

    return make


def build(config: TrainConfig, folder: Path, tmp_path: Path) -> Any:
    runtime = validate_and_prepare_config(config, None, 0)
    tokenizer = get_tokenizer(TokenizerConfig(name=str(folder)))
    context = setup_distributed(config, runtime)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep_last=None)
    return setup_model_and_optimizer(
        config, tokenizer, runtime, context, checkpoints, total_steps=1
    ).model


@pytest.mark.parametrize(
    ("code", "force_hf", "built"),
    [
        (CONVERTS, None, "OwnForCausalLM"),
        (CONVERTS, False, "OwnForCausalLM"),
        (CONVERTS, True, "LlamaForCausalLM"),
        (OWN, True, "LlamaForCausalLM"),
        (OWN, None, "LlamaForCausalLM"),
    ],
)
def test_a_models_own_implementation_is_used_where_it_gives_single_tensors(
    code: str,
    force_hf: bool | None,
    built: str,
    own: Callable[[str], Path],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = own(code)
    model = {"pretrained_model_name_or_path": str(folder), "trust_remote_code": True}
    config = configure(model={**model, "force_hf": force_hf})
    assert type(build(config, folder, tmp_path)).__name__ == built
    warned = "warning: model.force_hf" in capsys.readouterr().out
    assert warned == (code == OWN and force_hf is None)


def test_an_own_implementation_that_cannot_is_refused_before_it_is_loaded(
    own: Callable[[str], Path], configure: Configure
) -> None:
    folder = own(OWN + "\nraise RuntimeError('this must not run')\n")
    model = {"pretrained_model_name_or_path": str(folder), "trust_remote_code": True}
    with pytest.raises(UsageError, match=r"model\.force_hf") as caught:
        validate_and_prepare_config(configure(model={**model, "force_hf": False}), None, 0)
    assert "force_hf=true" in caught.value.fix


def test_code_that_is_not_trusted_never_runs(
    own: Callable[[str], Path], configure: Configure, tmp_path: Path
) -> None:
    folder = own("raise RuntimeError('this must not run')\n")
    config = configure(model={"pretrained_model_name_or_path": str(folder)})
    assert type(build(config, folder, tmp_path)) is LlamaForCausalLM


REWARD = {"reward_model_cfg": {"enabled": True, "reward_model_type": "bradley_terry"}}


def test_a_reward_model_gives_one_score_a_sequence_on_top_of_the_pretrained_weights(
    configure: Configure, llama: Path, tmp_path: Path
) -> None:
    config = configure(model=REWARD)
    assert validate_and_prepare_config(config, None, 0).kind is Kind.REWARD
    model = build(config, llama, tmp_path)
    assert type(model) is LlamaForSequenceClassification
    ids = torch.tensor([[5, 9, 30, 2], [7, 7, 2, 0]])
    assert model(input_ids=ids).logits.shape == (2, 1)
    base = LlamaForCausalLM.from_pretrained(llama)
    for name, weight in base.model.state_dict().items():
        assert torch.equal(model.model.state_dict()[name], weight)


def test_fine_tuning_refuses_a_reward_model_and_packing_one_is_refused_by_the_setup(
    configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="reward_model_cfg"):
        sft.main(configure(model=REWARD), tmp_path)
    packed = configure(model=REWARD, packed_sequence={"packed_sequence_size": 64})
    with pytest.raises(UsageError, match="packed_sequence_size"):
        validate_and_prepare_config(packed, None, 0)


@pytest.fixture
def vision(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny model that takes images."""
    folder = tmp_path / "vision"
    text = {**SIZES, "vocab_size": len(tokenizer), "model_type": "llama"}
    tower = {
        "model_type": "clip_vision_model",
        **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "image_size": 16, "patch_size": 8, "projection_dim": 16},
    }
    config = AutoConfig.for_model(
        "llava", text_config=text, vision_config=tower, image_token_index=1
    )
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_vision_model_is_trained_on_text_and_its_frozen_tower_stays(
    vision: Path, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {"pretrained_model_name_or_path": str(vision), "freeze": {"vision_tower": True}}
    config = configure(model=model)
    assert validate_and_prepare_config(config, None, 0).kind is Kind.VISION
    assert sft.main(config, tmp_path) == 0
    taken = [float(loss) for loss in losses(capsys.readouterr().out)]
    assert taken[-1] < taken[0]
    trained = AutoModelForImageTextToText.from_pretrained(tmp_path / "checkpoints/latest")
    before = AutoModelForImageTextToText.from_pretrained(vision).state_dict()
    for name, weight in trained.state_dict().items():
        frozen = "vision" in name
        assert torch.equal(weight, before[name]) is (frozen or "projector" in name), name


def test_a_vision_model_does_not_pack(vision: Path, configure: Configure) -> None:
    config = configure(
        model={"pretrained_model_name_or_path": str(vision)},
        packed_sequence={"packed_sequence_size": 64},
    )
    with pytest.raises(UsageError, match=r"packed_sequence_size.*images"):
        validate_and_prepare_config(config, None, 0)
