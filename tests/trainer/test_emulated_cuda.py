"""Runs on emulated GPUs: what they train, where the host waits for them, and what they refuse."""

from __future__ import annotations

import math
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tunedeck.core.schema import TrainConfig
from tunedeck.trainer.reporting.diff import compare
from tunedeck.trainer.reporting.ledger import read_ledger

from ..emulated_cuda import build, device
from ..emulated_cuda.recording import Recording, Wait, recorded
from .helpers import SIZES, saved
from .parallel.runs import Run, train_here
from .parallel.workers import Workers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not())),
]

Configure = Callable[..., TrainConfig]
LORA = {"dim": 4, "alpha": 8}
PACKED = {"packed_sequence_size": 128}
STEPS = {"global_batch_size": 8, "local_batch_size": 2, "max_steps": 4, "log_every_steps": 2}
# Without a large epsilon Adam makes a full step of a gradient that is rounding alone.
ADAM = {"lr": 1e-2, "eps": 1e-3}


@pytest.fixture(scope="module")
def gpus() -> Iterator[Workers]:
    """Two processes that see two GPUs."""
    with Workers(partial(device.install, build.build(), 2)) as started:
        yield started


@dataclass
class OnGpus(Run):
    """A run, and what each rank did to its GPU."""

    recordings: list[Recording]

    def waits(self, within: str = "trainer/stepping.py") -> list[Wait]:
        """Where the first rank waited within a file; steps are taken in that of the default."""
        waits = self.recordings[0].waits
        return [wait for wait in waits if any(within in frame for frame in wait.stack)]


Train = Callable[..., OnGpus]


@pytest.fixture
def train(gpus: Workers, configure: Configure, tmp_path: Path) -> Train:
    """Train on so many GPUs; keyword arguments are tables of the config."""

    def run(ranks: int, name: str, *, limit: int = 0, **tables: Any) -> OnGpus:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        config = configure(**{"optimizer": ADAM, "step_scheduler": STEPS, **tables})
        gpus.send(ranks, partial(recorded, limit=limit), train_here, config, folder)
        answers = gpus.take(ranks)
        recordings = [recording for recording, _ in answers]
        codes = [recording.returned for recording in recordings]
        assert codes == [0] * ranks
        return OnGpus(answers[0][1], folder, codes, recordings)

    return run


@pytest.fixture
def packed(configure: Configure, chat_file: Path) -> dict[str, Any]:
    """Tables of an adapter that is trained on packed rows."""
    validation = {"path_or_dataset_id": str(chat_file), "split": "train[:6]"}
    return {"peft": LORA, "packed_sequence": PACKED, "validation_dataset": validation}


def test_a_run_has_the_losses_of_the_cpu_and_goes_on_from_what_it_saved_in_the_background(
    train: Train,
    packed: dict[str, Any],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = {**STEPS, "log_every_steps": 1, "val_every_steps": 2, "ckpt_every_steps": 2}
    tables: dict[str, Any] = {**packed, "step_scheduler": steps}
    config = configure(optimizer=ADAM, **tables)
    on_cpu = Run("", tmp_path / "cpu", [train_here(config, tmp_path / "cpu")])
    on_cpu.printed = capsys.readouterr().out
    on_gpu = train(1, "gpu", **tables, checkpoint={"async_save": True})
    assert on_gpu.recordings[0].peak > 0
    on_gpu.assert_equals(on_cpu)
    found = compare(read_ledger(on_gpu.folder), read_ledger(on_cpu.folder), tolerance=1e-5)
    assert (found.parting, found.compared) == (None, 4)
    again = train(1, "again", **tables, checkpoint={"restore_from": str(saved(on_gpu.folder, 2))})
    assert again.values("loss") == on_gpu.values("loss")[2:]
    assert again.values("val_loss") == on_gpu.values("val_loss")[-1:]


def test_the_host_waits_for_the_gpu_once_a_log_line_and_never_within_a_step(
    train: Train, packed: dict[str, Any], llama: Path
) -> None:
    model = {"pretrained_model_name_or_path": str(llama), "torch_dtype": "bfloat16"}
    run = train(1, "run", **packed, model=model)
    assert not run.waits(), f"the host waited within a step: {run.waits()[0]}"
    assert len(run.waits("update/pending.py")) == len(run.values("loss")) == 2


def test_a_step_with_experts_on_several_gpus_waits_for_the_numbers_of_rows_alone(
    train: Train, packed: dict[str, Any], models_of: Callable[[str], Path]
) -> None:
    model = {"pretrained_model_name_or_path": str(models_of("mixtral")), "torch_dtype": "bfloat16"}
    run = train(2, "run", **packed, model=model, distributed={"ep_size": 2})
    waits = [wait for wait in run.waits("parallel/experts.py") if "experts.py" in wait.stack[0]]
    counted = Counter(wait.what for wait in waits)
    assert counted.keys() == {"aten::bincount", "copy to the host"}, f"{waits[-1]}"
    assert counted["copy to the host"] == counted["aten::bincount"], f"{waits[-1]}"


@pytest.mark.parametrize("mesh", [{"cpu_offload": True}, {"cp_size": 2}], ids=str)
def test_two_gpus_train_what_one_process_trains(
    mesh: dict[str, Any], train: Train, packed: dict[str, Any]
) -> None:
    train(2, "two", **packed, distributed=mesh).assert_equals(train(1, "one", **packed))


def test_two_gpus_train_a_model_that_is_made_anew_in_main_memory(
    train: Train, packed: dict[str, Any], llama: Path
) -> None:
    config = {"model_type": "llama", **SIZES, "vocab_size": 260}
    model = {"pretrained_model_name_or_path": None, "config": config}
    new = {**packed, "peft": None, "model": model, "tokenizer": {"name": str(llama)}}
    two = train(2, "two", **new, distributed={"cpu_offload": True})
    two.assert_equals(train(1, "one", **new))


def test_micro_batches_are_halved_where_memory_runs_out_and_losses_stay(
    train: Train, packed: dict[str, Any]
) -> None:
    tables = {**packed, "step_scheduler": {**STEPS, "local_batch_size": 8}}
    roomy = train(1, "roomy", **tables)
    limit = roomy.recordings[0].peak * 3 // 4
    tight = train(1, "tight", **tables, limit=limit)
    assert tight.recordings[0].peak <= limit
    assert "memory ran out in step 1: micro-batches of 4 rows" in tight.printed
    tight.assert_equals(roomy)


def refusals() -> dict[str, str]:
    """What each mistake that a CPU forgives came to; runs where there are GPUs."""
    here, there = torch.ones(4, device="cuda:0"), torch.ones(4, device="cuda:1")
    pinned = torch.ones(4).pin_memory()

    def write_too_early() -> None:
        pinned.to("cuda:0", non_blocking=True)
        pinned.zero_()
        torch.cuda.synchronize()

    mistakes: dict[str, Callable[[], object]] = {
        "host": lambda: here + torch.ones(4),
        "other device": lambda: here + there,
        "no device": lambda: torch.ones(4, device="cuda:2"),
        "generator": lambda: torch.rand(4, device="cuda", generator=torch.Generator()),
        "written too early": write_too_early,
    }
    said = {}
    for name, mistake in mistakes.items():
        try:
            said[name] = f"passed: {mistake()}"
        except (RuntimeError, torch.AcceleratorError) as error:
            said[name] = str(error)
    return said


def early_and_late() -> tuple[list[float], list[float], list[float]]:
    """Memory that nobody wrote, and a copy to the host before and after it was waited for."""
    fresh = torch.empty(2, device="cuda").tolist()
    host = torch.empty(2, pin_memory=True)
    host.copy_(torch.ones(2, device="cuda"), non_blocking=True)
    early = host.tolist()
    torch.cuda.synchronize()
    return fresh, early, host.tolist()


def test_what_a_gpu_refuses_is_refused_and_what_has_not_arrived_is_no_number(
    gpus: Workers,
) -> None:
    said = gpus.run(1, refusals)[0]
    assert "on the same device" in said["host"] and "on the same device" in said["other device"]
    assert "invalid device ordinal" in said["no device"]
    assert "'cuda' device type for generator" in said["generator"]
    assert "before its copy to the device was over" in said["written too early"]
    fresh, early, late = gpus.run(1, early_and_late)[0]
    assert all(map(math.isnan, [*fresh, *early])) and late == [1, 1]


def test_it_is_compiled_once_for_its_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    module = build.build()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("compiled again"))
    assert build.build() == module
