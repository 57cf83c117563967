"""What each rank holds while a model is set up: measured by what torch allocates."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.model import TokenizerConfig

from ..helpers import SIZES, saved
from .runs import Run
from .workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Trained = Callable[..., Run]
STEPS: dict[str, Any] = {"global_batch_size": 8, "local_batch_size": 2, "max_steps": 1}
LAYERS = 12


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A model of many layers, none of which is much of it."""
    folder = tmp_path_factory.mktemp("deep")
    sizes = {**SIZES, "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": LAYERS}
    config = AutoConfig.for_model("llama", **sizes, vocab_size=260)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def allocated_here(config: TrainConfig, restored: Path | None) -> tuple[int, int, int]:
    """Bytes of this rank's weights, the most that were allocated at once, and of the model."""
    from torch.distributed.tensor import DTensor
    from torch.profiler import ProfilerActivity, profile

    from tunedeck.trainer import setup
    from tunedeck.trainer.checkpoints.published import Checkpoints
    from tunedeck.trainer.parallel.mesh import leave

    runtime = setup.validate_and_prepare_config(config, None, 0)
    context = setup.setup_distributed(config, runtime)
    source = config.model.pretrained_model_name_or_path
    tokenizer = setup.get_tokenizer(TokenizerConfig(name=source))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        state = setup.setup_model_and_optimizer(
            config,
            tokenizer,
            runtime,
            context,
            Checkpoints(Path(), keep_last=None),
            total_steps=1,
            init_optimizer=False,
            weights_path=restored,
        )
    assert watched.profiler is not None and watched.profiler.kineto_results is not None
    # A file that is mapped is counted as well; what is not read of it takes no room.
    mapped = {file.stat().st_size for file in Path(str(source)).glob("*.safetensors")}
    events = [
        event
        for event in watched.profiler.kineto_results.events()
        if event.name() == "[memory]" and abs(event.nbytes()) not in mapped
    ]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    weights = [w for w in state.model.parameters() if isinstance(w, DTensor)]
    leave()
    mine = sum(w.to_local().nbytes for w in weights)
    return mine, most, sum(w.nbytes for w in weights)


@pytest.mark.parametrize("mesh", [{}, {"tp_size": 2}, {"cp_size": 2}], ids=str)
def test_a_model_is_loaded_and_continued_in_pieces(
    mesh: dict[str, Any],
    deep: Path,
    trained: Trained,
    workers: Workers,
    configure: Callable[..., TrainConfig],
) -> None:
    model = {"pretrained_model_name_or_path": str(deep), "torch_dtype": "float32"}
    tables = {"model": model, "step_scheduler": STEPS, "distributed": mesh}
    run = trained(2, **tables)
    for restored in (None, saved(run.folder, 1)):
        for mine, most, model_bytes in workers.run(
            2, allocated_here, configure(**tables), restored
        ):
            assert 0.49 * model_bytes < mine < 0.52 * model_bytes
            # Beside its pieces a rank has what it is about to cut, of one layer at the most.
            assert most < mine + 1.5 * model_bytes / LAYERS, (mine, most, model_bytes)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_model_that_is_continued_needs_no_weights_of_its_base(
    ranks: int, llama: Path, trained: Trained, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    steps = {**STEPS, "max_steps": 4, "ckpt_every_steps": 2}
    tables = {"model": {"pretrained_model_name_or_path": str(base)}, "step_scheduler": steps}
    whole = trained(ranks, **tables, checkpoint={"keep_last": None})
    for file in base.glob("*.safetensors"):
        file.unlink()
    restore = {"restore_from": str(saved(whole.folder, 2))}
    rest = trained(ranks, name="rest", **tables, checkpoint=restore)
    assert rest.values("loss") == whole.values("loss")[2:]
    for name, tensor in whole.weights().items():
        assert torch.equal(rest.weights()[name], tensor), name
