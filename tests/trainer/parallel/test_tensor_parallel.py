from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.model import TokenizerConfig

from ..helpers import rows, write_rows
from .runs import LOSS, Run
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


@pytest.mark.parametrize("kind", ["qwen3", "mistral", "gemma2", "gemma3_text", "phi3"])
def test_split_layers_of_other_architectures_train_as_whole_ones(
    kind: str, new_model: Callable[[str], dict[str, Any]], trained: Trained
) -> None:
    tables = {**new_model(kind), "step_scheduler": STEPS}
    mesh = {"tp_size": 2, "sequence_parallel": True}
    trained(2, **tables, distributed=mesh).assert_equals(trained(1, **tables))


@pytest.mark.parametrize("sequence", [False, True], ids=["", "sequence"])
@pytest.mark.parametrize("options", [{}, {"use_rslora": True, "dropout": 1e-9}], ids=["", "other"])
def test_magnitudes_of_split_layers_train_as_whole_ones(
    options: dict[str, Any], sequence: bool, trained: Trained
) -> None:
    """With dropout PEFT computes the layer once more; so little of it drops nothing."""
    peft = {**LORA, "use_dora": True, "match_all_linear": True, **options}
    tables = {"peft": peft, "step_scheduler": STEPS}
    mesh = {"tp_size": 2, "sequence_parallel": sequence}
    alone = trained(1, **tables)
    split = trained(2, **tables, distributed=mesh)
    split.assert_equals(alone)
    assert any("magnitude" in name for name in split.weights())


@pytest.mark.parametrize("kind", ["phi3", "qwen2_moe", "gemma3_text"])
def test_magnitudes_of_layers_that_are_left_whole_train_as_on_one_process(
    kind: str, new_model: Callable[[str], dict[str, Any]], trained: Trained
) -> None:
    """Beside a head that is trained whole, which in Gemma is tied to the embeddings."""
    peft = {**LORA, "use_dora": True, "modules_to_save": ["lm_head"]}
    tables = {**new_model(kind), "peft": peft, "step_scheduler": STEPS}
    mesh = {"tp_size": 2, "sequence_parallel": True}
    trained(2, **tables, distributed=mesh).assert_equals(trained(1, **tables))


def test_a_new_model_and_its_adapters_are_the_same_on_any_ranks(
    new_model: Callable[[str], dict[str, Any]], trained: Trained
) -> None:
    """New adapters add nothing, with magnitudes or without: these are those of the new weights."""
    tables = {**new_model("qwen2"), "step_scheduler": STEPS}
    plain = trained(1, **tables, peft=LORA)
    trained(2, name="shards", **tables, peft=LORA).assert_equals(plain)
    dora = {**LORA, "use_dora": True}
    alone = trained(1, **tables, peft=dora)
    assert alone.values("loss")[0] == pytest.approx(plain.values("loss")[0], abs=LOSS)
    trained(2, **tables, peft=dora, distributed={"tp_size": 2}).assert_equals(alone)


def test_whole_copies_of_split_layers_train_as_whole_ones(trained: Trained) -> None:
    saved = ["down_proj", "k_proj", "lm_head", "embed_tokens"]
    peft = {**LORA, "target_modules": ["q_proj"], "modules_to_save": saved}
    tables = {"peft": peft, "step_scheduler": STEPS}
    for sequence in (False, True):
        mesh = {"tp_size": 2, "sequence_parallel": sequence}
        split = trained(2, name=f"split_{sequence}", **tables, distributed=mesh)
        split.assert_equals(trained(1, **tables))


@pytest.mark.parametrize("kind", ["qwen3", "gemma3_text"])
def test_a_tied_vocabulary_that_ranks_cannot_share_is_left_whole(
    kind: str, models_of: Callable[[str], Path], trained: Trained
) -> None:
    folder = models_of(kind)
    assert json.loads((folder / "config.json").read_text())["vocab_size"] % 2
    model = {"pretrained_model_name_or_path": str(folder)}
    tables = {"model": model, "step_scheduler": STEPS}
    mesh = {"tp_size": 2, "sequence_parallel": True}
    trained(2, **tables, distributed=mesh).assert_equals(trained(1, **tables))


def test_parts_of_a_step_of_very_different_lengths_weigh_by_their_tokens(
    trained: Trained, tmp_path: Path
) -> None:
    """Micro-batches of one row, the longest of which has ten times the tokens of the shortest."""
    content = rows(24)
    for number, row in enumerate(content):
        row["messages"][1]["content"] *= 1 + number % 7 * 4
    file = write_rows(tmp_path / "uneven.jsonl", content)
    steps = {"global_batch_size": 12, "local_batch_size": 1, "max_steps": 2}
    tables = {"dataset": {"path_or_dataset_id": str(file)}, "step_scheduler": steps}
    alone = trained(1, **tables)
    trained(4, **tables, distributed={"tp_size": 2}).assert_equals(alone)
    trained(2, **tables, distributed={"cp_size": 2}).assert_equals(alone)
    trained(2, name="shards", **tables).assert_equals(alone)


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


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_no_rank_holds_more_than_its_pieces(
    kind: str,
    workers: Workers,
    configure: Callable[..., TrainConfig],
    new_model: Callable[[str], dict[str, Any]],
) -> None:
    config = configure(**new_model(kind), distributed={"tp_size": 2})
    found = workers.run(4, sizes_here, config)
    assert {whole for _, whole, _ in found} == {0}
    total = found[0][2]
    # Norms are not split by tensor parallelism.
    assert all(total / 4 <= mine < total / 3.5 for mine, _, _ in found)
