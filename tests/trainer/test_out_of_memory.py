from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunedeck.core.errors import TunedeckError
from tunedeck.core.schema import TrainConfig
from tunedeck.trainer import sft
from tunedeck.trainer.checkpoints.progress import random_state
from tunedeck.trainer.parallel.context import ALONE
from tunedeck.trainer.reporting.diff import compare
from tunedeck.trainer.reporting.ledger import read_ledger
from tunedeck.trainer.setup import validate_and_prepare_config
from tunedeck.trainer.update.out_of_memory import REMEMBERED, MicroBatches, is_out_of_memory

from .helpers import losses, metric_lines

Configure = Callable[..., TrainConfig]
LORA = {"dim": 4, "alpha": 8}
EIGHT = {"global_batch_size": 8, "local_batch_size": 8}


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Let a forward pass over more than so many tokens run out of memory in the middle of it."""
    original = sft.setup_model_and_optimizer

    def limit(tokens: int) -> list[int]:
        passed: list[int] = []

        def hook(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            # The second layer: the first one's activations are there by then.
            size = inputs[0].shape[0] * inputs[0].shape[1]
            if size > tokens:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            passed.append(size)

        def setup(*args: Any, **options: Any) -> Any:
            state = original(*args, **options)
            state.model.model.layers[1].register_forward_pre_hook(hook)
            return state

        monkeypatch.setattr(sft, "setup_model_and_optimizer", setup)
        return passed

    return limit


def run(config: TrainConfig, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert sft.main(config, folder) == 0
    printed: str = capsys.readouterr().out
    return printed


@pytest.mark.parametrize("attention", ["sdpa", None])
@pytest.mark.parametrize("packed", [0, 128])
def test_micro_batches_shrink_until_they_fit_and_the_steps_stay_what_they_are(
    attention: str | None,
    packed: int,
    memory: Callable[[int], list[int]],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configure(
        peft=LORA,
        model={"attn_implementation": attention},
        packed_sequence={"packed_sequence_size": packed},
        step_scheduler={"global_batch_size": 4, "local_batch_size": 4} if packed else EIGHT,
    )
    expected = run(config, tmp_path / "roomy", capsys)
    passed = memory(100)
    printed = run(config, tmp_path / "tight", capsys)
    assert max(passed) <= 100
    assert printed.count("memory ran out in step") >= 2
    assert "; the global batch stays" in printed
    assert [float(loss) for loss in losses(printed)] == pytest.approx(
        [float(loss) for loss in losses(expected)], abs=1e-5
    )
    assert len(losses(printed)) == 4
    found = compare(
        read_ledger(tmp_path / "roomy"), read_ledger(tmp_path / "tight"), tolerance=1e-4
    )
    assert found.parting is None


def test_a_run_that_goes_on_knows_what_fits(
    memory: Callable[[int], list[int]],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    memory(150)
    first, second = tmp_path / "first", tmp_path / "second"
    steps = {**EIGHT, "ckpt_every_steps": 2}
    printed = run(configure(peft=LORA, step_scheduler=steps), first, capsys)
    assert "memory ran out in step 1: micro-batches of 2 rows" in printed
    record = json.loads((first / "checkpoints" / REMEMBERED).read_text())
    assert record["micro_batch"] == 2
    restored = configure(
        peft=LORA,
        step_scheduler={**steps, "max_steps": 6},
        checkpoint={"restore_from": str(first)},
    )
    again = run(restored, second, capsys)
    assert "micro-batches of 2 rows, as memory ran out before" in again
    assert "memory ran out in step" not in again
    assert [values["step"] for values in metric_lines(again)] == ["5", "6"]
    smaller = configure(
        peft=LORA,
        step_scheduler={**steps, "local_batch_size": 1, "max_steps": 6},
        checkpoint={"restore_from": str(first)},
    )
    assert "micro-batches of" not in run(smaller, tmp_path / "third", capsys)


def test_a_new_run_in_the_same_folder_tries_for_itself(
    memory: Callable[[int], list[int]],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory(150)
    config = configure(peft=LORA, step_scheduler=EIGHT)
    monkeypatch.setenv("TUNEDECK_RUN_ID", "r1")
    run(config, tmp_path, capsys)
    assert "as memory ran out before" in run(config, tmp_path, capsys)
    monkeypatch.setenv("TUNEDECK_RUN_ID", "r2")
    printed = run(config, tmp_path, capsys)
    assert "as memory ran out before" not in printed
    assert "memory ran out in step 1" in printed


def test_a_validation_that_does_not_fit_is_cut_as_well(
    memory: Callable[[int], list[int]],
    configure: Configure,
    tmp_path: Path,
    chat_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configure(
        step_scheduler=EIGHT, validation_dataset={"path_or_dataset_id": str(chat_file)}
    )
    expected = metric_lines(run(config, tmp_path, capsys), "val_loss")
    memory(100)
    found = metric_lines(run(config, tmp_path, capsys), "val_loss")
    assert [v["val_tokens"] for v in found] == [v["val_tokens"] for v in expected]
    assert float(found[1]["val_loss"]) == pytest.approx(float(expected[1]["val_loss"]), abs=1e-5)


@pytest.mark.parametrize("huge", [False, True])
def test_where_nothing_is_left_to_halve_the_error_names_what_would_help(
    huge: bool,
    memory: Callable[[int], list[int]],
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory(5)
    if huge:
        monkeypatch.setattr("tunedeck.trainer.update.out_of_memory.memory_bytes", lambda: 1 << 30)
    with pytest.raises(TunedeckError) as caught:
        sft.main(configure(step_scheduler=EIGHT), tmp_path)
    assert "Memory runs out in step 1 with a single row" in caught.value.message
    assert "By the estimate" in caught.value.fix
    helps = "would fit" if huge else "activation_checkpointing=true"
    assert helps in caught.value.fix or "makes it fit" in caught.value.fix


def test_the_machines_own_memory_counts_too_and_other_errors_do_not() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 55)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(MemoryError())


def test_what_is_attempted_again_draws_the_same_numbers(
    configure: Configure, tmp_path: Path
) -> None:
    """Dropout of a step does not depend on how often memory ran out in it."""
    config = configure(step_scheduler=EIGHT)
    runtime = validate_and_prepare_config(config, None, 0)
    drawn: list[float] = []

    def attempt() -> None:
        drawn.append(torch.rand(()).item())
        if len(drawn) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    batches: Any = [SimpleNamespace(rows=range(8))]
    sizes = MicroBatches(config, runtime, ALONE, folder=tmp_path)
    sizes.fit(attempt, batches, step=1, again=random_state())
    assert drawn == [drawn[0]] * 3
