from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.model import TokenizerConfig

from .runs import Run
from .workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Trained = Callable[..., Run]
STEPS: dict[str, Any] = {"global_batch_size": 4, "local_batch_size": 2, "max_steps": 3}
LORA: dict[str, Any] = {"dim": 4, "alpha": 8}


@pytest.mark.parametrize("peft", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("sequence", [False, True], ids=["", "sequence"])
def test_split_layers_train_as_whole_ones(
    peft: dict[str, Any] | None, sequence: bool, trained: Trained
) -> None:
    tables = {"peft": peft, "step_scheduler": STEPS}
    alone = trained(1, **tables)
    mesh = {"tp_size": 2, "sequence_parallel": sequence}
    trained(2, **tables, distributed=mesh).assert_equals(alone)
    trained(4, **tables, distributed=mesh).assert_equals(alone)


@pytest.mark.parametrize("kind", ["qwen3", "mistral", "gemma2"])
def test_split_layers_of_other_architectures_train_as_whole_ones(
    kind: str, new_model: Callable[[str], dict[str, Any]], trained: Trained
) -> None:
    tables = {**new_model(kind), "step_scheduler": STEPS}
    mesh = {"tp_size": 2, "sequence_parallel": True}
    trained(2, **tables, distributed=mesh).assert_equals(trained(1, **tables))


def sizes_here(config: TrainConfig) -> tuple[int, int, int]:
    """Numbers of this rank's weights, of the largest that it has whole, and of the model."""
    from torch.distributed.tensor import DTensor

    from tunedeck.trainer import setup
    from tunedeck.trainer.checkpoints.published import Checkpoints
    from tunedeck.trainer.parallel.mesh import leave

    runtime = setup.validate_and_prepare_config(config, None, 0)
    context = setup.setup_distributed(config, runtime)
    name = TokenizerConfig(name=config.tokenizer.name)
    state = setup.setup_model_and_optimizer(
        config,
        setup.get_tokenizer(name),
        runtime,
        context,
        Checkpoints(Path(), keep_last=None),
        total_steps=1,
    )
    weights = list(state.model.parameters())
    assert all(isinstance(weight, DTensor) for weight in weights)
    pieces = [weight.to_local() for weight in weights if isinstance(weight, DTensor)]
    assert not any(piece.is_meta for piece in pieces)
    whole = [p.numel() for p, w in zip(pieces, weights, strict=True) if p.numel() == w.numel()]
    leave()
    return sum(p.numel() for p in pieces), max(whole, default=0), sum(w.numel() for w in weights)


def test_no_rank_holds_more_than_its_pieces(
    workers: Workers,
    configure: Callable[..., TrainConfig],
    new_model: Callable[[str], dict[str, Any]],
) -> None:
    config = configure(**new_model("llama"), distributed={"tp_size": 2})
    found = workers.run(4, sizes_here, config)
    assert {whole for _, whole, _ in found} == {0}
    total = found[0][2]
    # Norms are not split by tensor parallelism.
    assert all(total / 4 <= mine < total / 3.5 for mine, _, _ in found)
