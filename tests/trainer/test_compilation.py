from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tunedeck.core.schema import TrainConfig
from tunedeck.core.schema.parallel import CompileConfig
from tunedeck.trainer import sft
from tunedeck.trainer.model import compilation
from tunedeck.trainer.model.attention import DOCUMENTS
from tunedeck.trainer.model.compilation import Compilation, compile_blocks
from tunedeck.trainer.parallel.fsdp import blocks

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def reset() -> Iterator[None]:
    yield
    torch.compiler.reset()


def model_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=DOCUMENTS
    )


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
