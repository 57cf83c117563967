from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.adapter import LoraConfig
from tunedeck.core.schema.model import ModelConfig
from tunedeck.core.schema.parallel import CompileConfig
from tunedeck.trainer import sft
from tunedeck.trainer.data.batches import Layout
from tunedeck.trainer.model import compilation
from tunedeck.trainer.model.attention import DOCUMENTS, Within
from tunedeck.trainer.model.compilation import Compilation, compile_blocks
from tunedeck.trainer.model.lora import add_adapter
from tunedeck.trainer.parallel.fsdp import blocks
from tunedeck.trainer.update.loss import SupervisedLoss

from .gpu_stand_in import stand_in
from .test_attention import documents

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def reset() -> Iterator[None]:
    yield
    torch.compiler.reset()


def model_of(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=DOCUMENTS)


@pytest.mark.slow
@pytest.mark.usefixtures("reset")
@pytest.mark.filterwarnings("ignore")
def test_compiled_blocks_give_the_same_loss_and_gradients_at_any_length(llama: Path) -> None:
    plain, compiled = model_of(llama), model_of(llama)
    compile_blocks(compiled, backend="aot_eager")
    torch.manual_seed(0)
    for bounds in ([0, 5, 12], [0, 20], [0, 3, 4, 33]):
        seams = torch.tensor(bounds, dtype=torch.int32)
        ids = torch.randint(3, 250, (1, bounds[-1]))
        places = torch.cat([torch.arange(n) for n in seams.diff().tolist()])[None]
        options = {"position_ids": places, "cu_seq_lens_q": seams, "use_cache": False}
        losses = [model(input_ids=ids, labels=ids, **options).loss for model in (plain, compiled)]
        torch.testing.assert_close(losses[1], losses[0])
        for loss in losses:
            loss.backward()
    pairs = zip(plain.parameters(), compiled.parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(other.grad, one.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("reset")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lora", [False, True])
def test_a_block_is_one_graph_for_all_lengths_with_the_kernel_of_a_gpu(
    lora: bool, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(llama, torch.bfloat16)
    if lora:
        name = ModelConfig(pretrained_model_name_or_path=str(llama))
        add_adapter(model, LoraConfig(dim=4, alpha=8), name)
    loss_sum = SupervisedLoss(model, autocast=torch.bfloat16 if lora else None)
    rows = documents()
    layout = Layout(0, in_line=True, multiple=64)
    batches = [layout.batch(rows[:n], range(n), n) for n in (2, 3, 4, 5, 1)]
    counters = torch._dynamo.utils.counters
    # What is traced knows its own device.
    monkeypatch.setattr(Within, "on_gpu", lambda *_: True)
    with stand_in(pytest.MonkeyPatch()):
        plain = [loss_sum(batch).item() for batch in batches]
        compile_blocks(model, backend="aot_eager")
        counters.clear()
        for batch, expected in zip(batches, plain, strict=True):
            loss = loss_sum(batch)
            loss.backward()
            assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert not counters["graph_break"]
    # One for the first length and one for all; with an adapter the first block has its own, as no
    # gradient is asked for its input.
    assert counters["stats"]["unique_graphs"] <= (4 if lora else 2)


@pytest.mark.slow
@pytest.mark.usefixtures("reset")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_blocks_that_inductor_compiles_have_the_loss_of_plain_ones(llama: Path) -> None:
    rows = documents()
    batch = Layout(0, in_line=True, multiple=64).batch(rows, range(len(rows)), len(rows))
    losses = []
    for backend in (None, "inductor"):
        model = model_of(llama)
        if backend is not None:
            compile_blocks(model, backend)
        loss = SupervisedLoss(model)(batch) / batch.targets.numel()
        loss.backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm().item()
        losses.append((loss.item(), norm))
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


@pytest.mark.parametrize(
    ("device", "steps", "after", "compiled_at"),
    [(GPU, 500, 0, 0), (GPU, 500, 20, 20), (GPU, 99, 0, None), (GPU, 110, 20, None),
     (CPU, 500, 0, None)],
)  # fmt: skip
def test_blocks_are_compiled_at_their_step_and_only_where_it_pays(
    device: torch.device,
    steps: int,
    after: int,
    compiled_at: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = 0

    def note(_model: Any) -> None:
        nonlocal times
        times += 1

    monkeypatch.setattr(compilation, "compile_blocks", note)
    config = CompileConfig(enabled=True, after_steps=after)
    compile_at = Compilation(object(), config, steps=steps, device=device)  # type: ignore[arg-type]
    seen = []
    for step in range(30):
        compile_at(step)
        seen.append(times)
    assert seen[-1] == (0 if compiled_at is None else 1)
    if compiled_at is not None:
        assert seen.index(1) == compiled_at
    else:
        assert "not compiled" in capsys.readouterr().out


def test_blocks_are_the_layers_that_repeat(models_of: Callable[[str], Path]) -> None:
    for kind in ("llama", "gemma2", "mixtral"):
        assert len(list(blocks(model_of(models_of(kind))))) == 2


def test_a_run_on_a_cpu_goes_on_without(
    configure: Callable[..., TrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(compile={"enabled": True}, step_scheduler={"max_steps": 1})
    assert sft.main(config, tmp_path) == 0
    assert "blocks are not compiled: it gains nothing on a CPU" in capsys.readouterr().out
