"""Setting a reward model up, step by step, as a trainer of one would."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from tunedeck.core.errors import UsageError
from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.model import TokenizerConfig
from tunedeck.trainer import sft
from tunedeck.trainer.checkpoints.progress import Progress, random_state
from tunedeck.trainer.checkpoints.published import Checkpoints
from tunedeck.trainer.checkpoints.saving import Saver
from tunedeck.trainer.checkpoints.weights import Weights, find_base
from tunedeck.trainer.checkpoints.writer import Moment
from tunedeck.trainer.model.kinds import Kind
from tunedeck.trainer.parallel.context import ALONE
from tunedeck.trainer.runtime import ModelAndOptimizerState
from tunedeck.trainer.setup import (
    get_tokenizer,
    setup_distributed,
    setup_model_and_optimizer,
    setup_reference_model_state,
    validate_and_prepare_config,
)

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

Configure = Callable[..., TrainConfig]
REWARD: dict[str, Any] = {"reward_model_cfg": {"enabled": True}}
CHOSEN, REJECTED = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[5, 6, 9, 10]])


def build(
    config: TrainConfig, folder: Path, base: Path, **options: Any
) -> tuple[ModelAndOptimizerState, Any]:
    runtime = validate_and_prepare_config(config, None, 0)
    assert runtime.kind is Kind.REWARD
    context = setup_distributed(config, runtime)
    tokenizer = get_tokenizer(TokenizerConfig(name=str(base)))
    checkpoints = Checkpoints(folder, keep_last=None)
    state = setup_model_and_optimizer(
        config, tokenizer, runtime, context, checkpoints, total_steps=4, **options
    )
    return state, tokenizer


def scores(state: ModelAndOptimizerState, ids: torch.Tensor, **options: Any) -> torch.Tensor:
    found: torch.Tensor = state.model(input_ids=ids, **options).logits
    return found


def learn(state: ModelAndOptimizerState) -> None:
    """A step of Bradley-Terry's loss."""
    assert state.optimizer is not None
    loss = -F.logsigmoid(scores(state, CHOSEN) - scores(state, REJECTED)).sum()
    loss.backward()
    state.optimizer.step()
    state.optimizer.zero_grad()


def save(config: TrainConfig, state: ModelAndOptimizerState, tokenizer: Any, folder: Path) -> Path:
    weights = Weights(state.model, state.adapter, tokenizer, find_base(config.model))
    saver = Saver(config.checkpoint, Checkpoints(folder, keep_last=None), state, weights, ALONE, {})
    saver.save(Moment(1, Progress(step=1).state(), random_state()), last=True)
    saver.close()
    return folder / "step_000001"


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mixtral"])
def test_one_score_a_row_whatever_it_is_padded_to(
    kind: str, models_of: Callable[[str], Path], configure: Configure, tmp_path: Path
) -> None:
    base = models_of(kind)
    config = configure(model={**REWARD, "pretrained_model_name_or_path": str(base)})
    state, tokenizer = build(config, tmp_path, base, init_optimizer=False)
    assert state.optimizer is None and state.scheduler is None
    assert state.model.config.num_labels == 1
    pad = tokenizer.pad_token_id
    rows = torch.tensor([[5, 6, 7, pad, pad], [5, 6, 7, 8, 9]])
    with torch.no_grad():
        both = scores(state, rows, attention_mask=(rows != pad).long())
        alone = scores(state, rows[:1, :3])
    assert both.shape == (2, 1)
    torch.testing.assert_close(both[:1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("peft", [None, {"dim": 4}])
def test_weights_and_optimizer_go_on_from_a_checkpoint(
    peft: dict[str, Any] | None, configure: Configure, llama: Path, tmp_path: Path
) -> None:
    config = configure(model=REWARD, peft=peft)
    state, tokenizer = build(config, tmp_path, llama)
    reference = setup_reference_model_state(state.model)
    assert any("score" in name and p.requires_grad for name, p in state.model.named_parameters())
    learn(state)
    now = state.model.state_dict()
    assert any(not torch.equal(now[name], copy) for name, copy in reference.items())
    folder = save(config, state, tokenizer, tmp_path / "saved")
    again, _ = build(config, tmp_path, llama, weights_path=folder, optimizer_path=folder)
    for one in (state, again):
        learn(one)
    torch.testing.assert_close(scores(again, CHOSEN), scores(state, CHOSEN), rtol=0, atol=0)
    fresh, _ = build(config, tmp_path, llama, weights_path=folder)
    assert fresh.optimizer is not None and not fresh.optimizer.state


def test_a_whole_reward_model_is_saved_as_transformers_loads_it(
    configure: Configure, llama: Path, tmp_path: Path
) -> None:
    config = configure(model=REWARD)
    state, tokenizer = build(config, tmp_path, llama)
    learn(state)
    folder = save(config, state, tokenizer, tmp_path / "saved")
    loaded, info = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=CHOSEN).logits, scores(state, CHOSEN))
    moved = configure(model={**REWARD, "pretrained_model_name_or_path": str(folder)})
    again, _ = build(moved, tmp_path, llama)
    torch.testing.assert_close(scores(again, CHOSEN), scores(state, CHOSEN))


def test_what_is_not_offered_is_refused_by_name(
    configure: Configure, llama: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="The recipe sft predicts tokens") as caught:
        sft.main(configure(model=REWARD), tmp_path)
    assert "reward_model_cfg.enabled=false" in caught.value.fix
    packed = configure(model=REWARD, packed_sequence={"packed_sequence_size": 64})
    with pytest.raises(UsageError, match="Packing does not go with a reward model"):
        validate_and_prepare_config(packed, None, 0)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    other = configure(model={**REWARD, "pretrained_model_name_or_path": str(tmp_path)})
    with pytest.raises(UsageError, match=r"'vit' is not a reward model") as caught:
        validate_and_prepare_config(other, None, 0)
    assert "AutoModelForSequenceClassification" in caught.value.fix
